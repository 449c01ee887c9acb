/* study.h - inside report/: the rows behind a comparison, read once and kept with it. */
#ifndef QDELTA_REPORT_STUDY_H
#define QDELTA_REPORT_STUDY_H

#include "report/report.h"

/* The runs of one model that answer one task under one setting: one run, or the shards of one. */
struct group {
    const char *label, *sha256, *path, *arch, *recipe, *format, *method;
    const char *tokenizer_hash, *template_name, *task, *task_version, *metric, *prompt_mode, *seed, *act, *tag;
    const char *program_version, *commit, *kernels, *runs;      /* runs: "3,7", goes into SQL as it is */
    double bits_per_weight, seconds;
    int shots, limit, shards, items, expected, finished;
    int64_t last_run, started_at, file_bytes, peak_bytes, tokens;
    double score;               /* of the primary metric over what is there */
};

struct arm {                    /* a model as the user named it */
    const char *label, *sha256;
    int64_t run;                /* that run alone; 0: any */
    const char *shown;          /* label, or "label #run" */
};

struct pair {
    const char *item, *group, *gold, *base_answer, *answer;     /* answers NULL: invalid */
    double base, model;         /* scores */
    double base_margin, margin; /* NAN unknown */
    bool base_truncated, truncated;
    int choices;
};

struct contrast {               /* one (task, metric, model) against the base */
    struct comparison c;
    const struct group *base, *model;
    struct pair *pairs;         /* [c.n], by item */
};

struct study {
    struct arena arena;         /* everything below lives here */
    struct store *s;
    struct group *groups;
    int n_groups;
    struct arm base, *models;
    int n_models;
    struct contrast *contrasts;
    int n;
    double margin, alpha;       /* margin as a share */
    bool common;                /* only the items both have */
};
bool study_make(struct study *st, struct store *s, const struct report_options *o, struct error *err);
void study_free(struct study *st);

bool groups_read(struct study *st, struct error *err);
bool arm_resolve(struct study *st, const char *name, struct arm *out, struct error *err);
/* The groups of the two arms for the task that fit best; false with the reason when even these do not fit.
 * *found tells whether both have the task at all. */
bool pair_groups(struct study *st, const struct arm *base, const struct arm *model, const char *task, bool common,
                 const struct group **b, const struct group **m, bool *found, struct error *err);
bool pairs_read(struct study *st, const struct group *b, const struct group *m, const char *metric, struct pair **out,
                int *n, struct error *err);
/* Tasks that any run of the arm answers, by name. */
bool arm_tasks(struct study *st, const struct arm *a, const char ***tasks, int *n, struct error *err);

/* Fill the counts, intervals and tests of c from its pairs; verdict and words need Holm over the family first. */
bool contrast_measure(struct contrast *x, double alpha, struct error *err);
bool contrasts_judge(struct study *st, struct error *err);
void put_p(struct text *t, double p);                   /* ".042", "< .0001" */
void put_points(struct text *t, double share, bool sign);      /* "+1.4", ".07" */

#endif
