/* report.h - the door of report/: rows -> paired deltas -> tables, plots, verdicts.
 *
 * Everything is derived from item rows by SQL; statistics are in stats.h (formulas and their sources
 * beside each).  Models answer the same items, so deltas are paired; items whose prompt hashes differ, or
 * task versions, act modes or prompt modes that differ, are refused by name, never mixed silently. */
#ifndef QDELTA_REPORT_H
#define QDELTA_REPORT_H

#include "base/base.h"
#include "report/stats.h"
#include "store/store.h"

enum verdict { VERDICT_BETTER, VERDICT_WORSE, VERDICT_EQUIVALENT, VERDICT_CANNOT_TELL, VERDICT_COUNT };
extern const char *const verdict_names[VERDICT_COUNT];

struct report_options {
    const char *base;               /* label, sha256 prefix or run id of the base model */
    const char *const *models;      /* labels; none = every model that shares a task with the base */
    int n_models;
    const char *task;               /* NULL = all shared */
    double margin;                  /* points; 0: 1 */
    double alpha;                   /* 0: .05 */
    bool common_items;              /* compare unfinished or unequal runs on the items both answered */
};

struct model_facts {                /* of the runs behind a score; strings "" when unknown */
    const char *label, *sha256, *method, *format, *recipe, *kernels, *commit, *runs /* "3,7" */;
    double bits_per_weight, tokens_per_s, items_per_s;
    uint64_t file_bytes, peak_bytes;
};

struct comparison {                 /* one (task, metric, model) against the base */
    char *task, *metric, *model, *base;
    int n;
    int both, lost, won, neither;   /* base right & model right; right->wrong; wrong->right; both wrong */
    int other;                      /* wrong->other wrong (the answer changed) */
    int invalid, truncated;         /* of the model */
    double score, score_lo, score_hi, base_score, base_lo, base_hi;     /* Wilson 95 % */
    double delta, delta_lo, delta_hi;                                   /* Tango 95 % (paired t for fractions) */
    double p, p_holm;               /* mid-p McNemar; Holm over the report's family */
    double detectable;              /* smallest difference seen with power .8 */
    enum verdict verdict;
    char *words;                    /* "worse by 1.4 points (0.05 to 2.7), 48 vs 30 discordant, Holm p = .042" */

    bool refused;                   /* not compared (n is 0); words say why */
    bool exploratory;               /* not the task's primary metric: adjusted among its like, never the headline */
    bool binary;                    /* scores are all 0 or 1 */
    bool generated;                 /* answers were written, not chosen */
    double chance;                  /* score of a guesser, 0 to 1: 1 / choices, or about 0 for generated answers */
    bool base_at_chance, at_chance; /* not above it at 95 % */
    int base_invalid, base_truncated;
    int lost_tie, won_tie;          /* flips where the base's top two were < 0.1 nat apart: coin tosses */
    int lost_sure, won_sure;        /* > 1 nat: damage, repair */
    const char *task_version, *act, *prompt_mode, *tag;
    int shots;
    struct model_facts base_facts, facts;
};
/* Primary metrics of all tasks first (they are one family for Holm), then the exploratory rows.  A model named in
 * o->models that cannot be compared is an error; one that was only found beside the base becomes a refused row. */
bool report_compare(struct store *s, const struct report_options *o, struct comparison **out, int *n, struct error *err);
void report_compare_free(struct comparison *c, int n);

bool report_print(FILE *out, const struct comparison *c, int n, bool json, struct error *err);   /* `compare` */
/* index.html, report.md, plots, data under dir.  gnuplot missing: *plots_missing set, the rest is written. */
bool report_write(struct store *s, const struct report_options *o, const char *dir, bool *plots_missing, struct error *err);

enum gate_result { GATE_PASS, GATE_REGRESSION, GATE_CANNOT_TELL };
struct gate_options {
    const char *baseline, *candidate;   /* run ids or model labels */
    double margin;
    int max_flips;                      /* over all tasks; -1 = not limited */
};
/* Identical rows pass; more flips than max_flips are a regression; then the score decides: pass when the 90 % interval
 * of every task stays above -margin, regression when the drop is significant (pooled over tasks, or the largest task's,
 * each at 2.5 % one-sided), else cannot tell.  The items that changed are printed. */
bool report_gate(struct store *s, const struct gate_options *o, FILE *out, bool json, enum gate_result *result, struct error *err);

#endif
