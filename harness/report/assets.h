/* assets.h - files carried inside the program (the Makefile's embed rule); NUL-terminated. */
#ifndef QDELTA_REPORT_ASSETS_H
#define QDELTA_REPORT_ASSETS_H

extern const unsigned char embed_report_css[];
extern const unsigned char embed_size_gp[], embed_forest_gp[], embed_flips_gp[], embed_subjects_gp[], embed_kld_gp[],
    embed_history_gp[];

#endif
