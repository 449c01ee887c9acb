/* doc.h - inside report/: a report as a list of blocks, written once and rendered as Markdown and as HTML.
 *
 * A failed allocation is remembered; doc_ok() tells at the end. */
#ifndef QDELTA_REPORT_DOC_H
#define QDELTA_REPORT_DOC_H

#include "base/base.h"

enum block_kind { BLOCK_HEADING, BLOCK_PARAGRAPH, BLOCK_TABLE, BLOCK_FIGURE, BLOCK_FOLD, BLOCK_FOLD_END, BLOCK_SIDES };

struct cell {
    const char *text, *tone;    /* tone: "" or a class of report.css: better, worse, equivalent, unknown, code */
};
struct block {
    enum block_kind kind;
    int level;                  /* of a heading */
    const char *text;           /* heading, paragraph, caption, summary; of sides: "" */
    const char *file;           /* figure: plots/x.svg beside the report; NULL: not drawn */
    const char *data;           /* figure: data/x.tsv */
    const char *align;          /* table: a letter l or r a column */
    struct cell *cells;         /* table: rows of strlen(align) cells, the first row the heads; sides: title, text, title, text */
    size_t n_cells, cap_cells;
};
struct doc {
    struct arena arena;
    struct block *blocks;
    size_t n, cap;
    bool failed;
    const char *title;
};

void doc_heading(struct doc *d, int level, const char *format, ...) __attribute__((format(printf, 3, 4)));
void doc_paragraph(struct doc *d, const char *format, ...) __attribute__((format(printf, 2, 3)));
void doc_figure(struct doc *d, const char *file, const char *data, const char *caption);
void doc_fold(struct doc *d, const char *format, ...) __attribute__((format(printf, 2, 3)));
void doc_fold_end(struct doc *d);
/* heads: separated by '|'.  Cells follow in order; a table ends where another block begins. */
void doc_table(struct doc *d, const char *align, const char *heads);
void doc_cell(struct doc *d, const char *tone, const char *format, ...) __attribute__((format(printf, 3, 4)));
void doc_sides(struct doc *d, const char *left_title, const char *left, const char *right_title, const char *right);
bool doc_ok(const struct doc *d, struct error *err);
void doc_free(struct doc *d);

void doc_markdown(const struct doc *d, struct text *out);
/* Plots are inlined from dir; their colours become the page's, so that they follow dark and light. */
bool doc_html(const struct doc *d, const char *dir, struct text *out, struct error *err);

#endif
