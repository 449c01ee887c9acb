/* kinds.h - task_kinds[]: the ways of scoring an item.  A kind turns rendered items into token requests and
 * answered requests into an item row; run.c schedules.  To add one: its file, its row. */
#ifndef QDELTA_EVAL_KINDS_H
#define QDELTA_EVAL_KINDS_H

#include "task.h"

struct task_kind {
    const char *name;
    bool needs_choices;         /* key "choices" */
    bool needs_contexts;        /* keys "contexts", "continuation" */
    bool generates;             /* keys "stops", "max_tokens", "extract" ...; metrics are exact_match,RULE */
};
extern const struct task_kind task_kinds[];
extern const size_t n_task_kinds;

bool kind_has_metric(const struct task_spec *s, const char *metric);
bool kind_default_metrics(struct task_spec *s, struct error *err);

/* ---- metrics of choices ---- */

struct scored_choices {
    const struct item_choice *choices;
    const bool *right, *greedy;     /* greedy: every token was the top one */
    int n;
};
/* pick: the choice that this metric holds for the answer (first of equals). */
struct choice_metric {
    const char *name;
    double (*score)(const struct scored_choices *c);
    int (*pick)(const struct scored_choices *c);
};
const struct choice_metric *choice_metric_find(const char *name);

/* "exact_match,RULE" -> index of the rule, or -1 */
int exact_match_rule(const struct extractor *e, const char *metric);

#endif
