/* plots.h - inside report/: a table of numbers becomes data/NAME.tsv and, through gnuplot, plots/NAME.svg. */
#ifndef QDELTA_REPORT_PLOTS_H
#define QDELTA_REPORT_PLOTS_H

#include "base/base.h"

struct plots {
    const char *dir;            /* of the report */
    bool failed;                /* gnuplot missing, or it could not draw one of them */
    char why[300];              /* the first reason */
};
struct figure {
    char file[160], data[160];  /* relative to dir; file "" when it could not be drawn */
};
/* kind: a script of reports/plots ("forest").  tsv is a header line and rows.  False only for errors of ours. */
bool plots_draw(struct plots *p, const char *kind, const char *name, const struct text *tsv, struct figure *out,
                struct error *err);
/* Letters, digits, '.', '-' stay; the rest becomes '_'. */
void plots_name(char *out, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
