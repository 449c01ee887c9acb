#include "kinds.h"

#include <math.h>
#include <string.h>

const struct task_kind task_kinds[] = {
    /* name        choices  contexts  generates */
    { "choice",    true,    false,    false },
    { "partial",   false,   true,     false },
    { "generate",  false,   false,    true },
};
const size_t n_task_kinds = ARRAY_LEN(task_kinds);

/* ---- choice metrics ---- */

static int first_largest(const struct scored_choices *c, double (*value)(const struct item_choice *))
{
    int best = 0;
    for (int i = 1; i < c->n; i++)
        if (value(&c->choices[i]) > value(&c->choices[best]))
            best = i;
    return best;
}

static double raw(const struct item_choice *c)
{
    return c->logprob;
}

static double by_chars(const struct item_choice *c)
{
    return c->logprob / (c->chars ? c->chars : 1);
}

static double by_bytes(const struct item_choice *c)
{
    return c->logprob / (c->bytes ? c->bytes : 1);
}

static int pick_raw(const struct scored_choices *c)
{
    return first_largest(c, raw);
}

static int pick_chars(const struct scored_choices *c)
{
    return first_largest(c, by_chars);
}

static int pick_bytes(const struct scored_choices *c)
{
    return first_largest(c, by_bytes);
}

static double acc(const struct scored_choices *c)
{
    return c->right[pick_raw(c)];
}

static double acc_norm(const struct scored_choices *c)
{
    return c->right[pick_chars(c)];
}

static double acc_bytes(const struct scored_choices *c)
{
    return c->right[pick_bytes(c)];
}

/* Share of probability on the true choices; the largest is taken off first so that exp stays in range. */
static double mc2(const struct scored_choices *c)
{
    double top = c->choices[pick_raw(c)].logprob, all = 0, right = 0;
    for (int i = 0; i < c->n; i++) {
        double p = exp(c->choices[i].logprob - top);
        all += p;
        right += c->right[i] ? p : 0;
    }
    return right / all;
}

static double greedy(const struct scored_choices *c)
{
    return c->greedy[0];
}

static const struct choice_metric choice_metrics[] = {
    { "acc", acc, pick_raw },   { "acc_norm", acc_norm, pick_chars }, { "acc_bytes", acc_bytes, pick_bytes },
    { "mc2", mc2, pick_raw },   { "greedy", greedy, pick_raw },
};

const struct choice_metric *choice_metric_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(choice_metrics); i++)
        if (strcmp(choice_metrics[i].name, name) == 0)
            return &choice_metrics[i];
    return NULL;
}

/* ---- metrics of a task ---- */

static const char exact_match[] = "exact_match,";

int exact_match_rule(const struct extractor *e, const char *metric)
{
    if (str_starts(metric, exact_match))
        for (int i = 0; i < extractor_rules(e); i++)
            if (strcmp(metric + strlen(exact_match), extractor_rule_name(e, i)) == 0)
                return i;
    return -1;
}

bool kind_has_metric(const struct task_spec *s, const char *metric)
{
    return s->kind->generates ? exact_match_rule(s->extractor, metric) >= 0 : choice_metric_find(metric) != NULL;
}

bool kind_default_metrics(struct task_spec *s, struct error *err)
{
    int n = s->kind->generates ? extractor_rules(s->extractor) : 1;
    if (!(s->metrics = mem_new((size_t)n, sizeof *s->metrics, err)))
        return false;
    if (!s->kind->generates)
        s->metrics[s->n_metrics++] = "acc";
    for (; s->n_metrics < n; s->n_metrics++) {
        const char *rule = extractor_rule_name(s->extractor, s->n_metrics);
        size_t size = strlen(exact_match) + strlen(rule) + 1;
        char *name = arena_new(&s->arena, size, err);
        if (!name)
            return false;
        snprintf(name, size, "%s%s", exact_match, rule);
        s->metrics[s->n_metrics] = name;
    }
    return true;
}
