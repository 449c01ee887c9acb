/* sections.h - inside report/: the parts of a report, each a function that adds its blocks. */
#ifndef QDELTA_REPORT_SECTIONS_H
#define QDELTA_REPORT_SECTIONS_H

#include "report/doc.h"
#include "report/plots.h"
#include "report/study.h"

struct writing {
    struct study *st;
    struct doc *doc;
    struct plots *plots;
};
typedef bool (*section)(struct writing *w, struct error *err);

bool section_head(struct writing *w, struct error *err);
bool section_summary(struct writing *w, struct error *err);
bool section_size(struct writing *w, struct error *err);
bool section_tasks(struct writing *w, struct error *err);
bool section_gap(struct writing *w, struct error *err);
bool section_flips(struct writing *w, struct error *err);
bool section_subjects(struct writing *w, struct error *err);
bool section_measures(struct writing *w, struct error *err);
bool section_history(struct writing *w, struct error *err);
bool section_exploratory(struct writing *w, struct error *err);
bool section_items(struct writing *w, struct error *err);
bool section_models(struct writing *w, struct error *err);
bool section_reading(struct writing *w, struct error *err);

const char *verdict_tone(const struct comparison *c);
const char *verdict_sign(const struct comparison *c);      /* "▲ better" */
bool is_primary(const struct contrast *x);                  /* a headline row with numbers in it */
/* The i-th task that has a primary row, or NULL. */
const char *nth_task(const struct study *st, int i);
size_t common_start(const struct study *st);    /* characters with which all names of the report begin */
void cell_percent(struct doc *d, double share);
void cell_points(struct doc *d, double share);
void cell_interval(struct doc *d, double lo, double hi, bool points);
void cell_p(struct doc *d, double p);
bool add_figure(struct writing *w, const char *kind, const char *name, struct text *tsv, const char *caption, struct error *err);

#endif
