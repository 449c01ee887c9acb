/* study.c - which models are compared on which tasks, and the rows behind each comparison. */
#include "report/study.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct model_facts facts_of(const struct group *g)
{
    double seconds = g->seconds > 0 ? g->seconds : NAN;
    return (struct model_facts){
        .label = g->label, .sha256 = g->sha256, .method = g->method, .format = g->format, .recipe = g->recipe,
        .kernels = g->kernels, .commit = g->commit, .runs = g->runs, .bits_per_weight = g->bits_per_weight,
        .tokens_per_s = (double)g->tokens / seconds, .items_per_s = g->items / seconds,
        .file_bytes = (uint64_t)g->file_bytes, .peak_bytes = (uint64_t)g->peak_bytes,
    };
}

static char *kept(struct study *st, const char *s, struct error *err)
{
    return arena_str(&st->arena, s, strlen(s), err);
}

static struct contrast *add_contrast(struct study *st, const char *task, const char *metric, const struct arm *model,
                                     struct error *err)
{
    if (st->n % 16 == 0) {      /* the arena keeps the old array until the end: a few hundred bytes */
        struct contrast *grown = arena_new(&st->arena, (size_t)(st->n + 16) * sizeof *grown, err);
        if (!grown)
            return NULL;
        if (st->n)
            memcpy(grown, st->contrasts, (size_t)st->n * sizeof *grown);
        st->contrasts = grown;
    }
    struct contrast *x = &st->contrasts[st->n];
    *x = (struct contrast){ 0 };
    x->c.task = kept(st, task, err);
    x->c.metric = kept(st, metric, err);
    x->c.model = kept(st, model->shown, err);
    x->c.base = kept(st, st->base.shown, err);
    if (!x->c.task || !x->c.metric || !x->c.model || !x->c.base)
        return NULL;
    st->n++;
    return x;
}

/* Both sides share these settings, or they would not have been paired. */
static void describe(struct contrast *x, const struct group *b, const struct group *m)
{
    x->base = b;
    x->model = m;
    x->c.task_version = b->task_version;
    x->c.act = b->act;
    x->c.prompt_mode = b->prompt_mode;
    x->c.tag = m->tag;
    x->c.shots = b->shots;
    x->c.base_facts = facts_of(b);
    x->c.facts = facts_of(m);
}

static bool add_metric(struct study *st, const struct arm *model, const struct group *b, const struct group *m,
                       const char *metric, bool exploratory, struct error *err)
{
    struct contrast *x = add_contrast(st, b->task, metric, model, err);
    if (!x)
        return false;
    describe(x, b, m);
    x->c.exploratory = exploratory;
    if (!pairs_read(st, b, m, metric, &x->pairs, &x->c.n, err))
        return false;
    if (exploratory && (x->c.n == 0 || (!st->common && x->c.n < b->items))) {
        st->n--;                                    /* one of the two lacks this metric somewhere */
        return true;
    }
    if (x->c.n == 0 || (!st->common && x->c.n < b->items))
        return fail(err, STATUS_INPUT, "task %s: only %d of %d items have a score for \"%s\" in both %s (run %s) and %s (run %s)",
                    b->task, x->c.n, b->items, metric, st->base.shown, b->runs, model->shown, m->runs);
    return contrast_measure(x, st->alpha, err);
}

static bool other_metrics(struct study *st, const struct group *b, const char ***names, int *n, struct error *err)
{
    struct text sql = { 0 };
    sqlite3_stmt *q = NULL;
    text_printf(&sql, "SELECT DISTINCT metric FROM scores JOIN items ON items.id = scores.item WHERE items.run IN (%s) "
                      "AND metric <> ?1 ORDER BY metric LIMIT 32", b->runs);
    bool ok = text_ok(&sql, err) && (sqlite3_prepare_v2(store_db(st->s), text_str(&sql), -1, &q, NULL) == SQLITE_OK ||
                                     fail(err, STATUS_INPUT, "reading the metrics: %s", sqlite3_errmsg(store_db(st->s))));
    text_free(&sql);
    *names = ok ? arena_new(&st->arena, 32 * sizeof **names, err) : NULL;
    *n = 0;
    if (ok)
        sqlite3_bind_text(q, 1, b->metric, -1, SQLITE_STATIC);
    for (ok = *names != NULL; ok && sqlite3_step(q) == SQLITE_ROW; ++*n)
        ok = ((*names)[*n] = kept(st, (const char *)sqlite3_column_text(q, 0), err)) != NULL;
    sqlite3_finalize(q);
    return ok;
}

static bool add_refused(struct study *st, const struct arm *model, const char *task, const char *why, struct error *err)
{
    struct contrast *x = add_contrast(st, task, "", model, err);
    if (!x)
        return false;
    x->c.refused = true;
    x->c.verdict = VERDICT_CANNOT_TELL;
    x->c.p = x->c.p_holm = x->c.detectable = x->c.delta = x->c.delta_lo = x->c.delta_hi = x->c.chance = NAN;
    x->c.score = x->c.score_lo = x->c.score_hi = x->c.base_score = x->c.base_lo = x->c.base_hi = NAN;
    struct text words = { 0 };
    text_printf(&words, "not compared: %s", why);
    x->c.words = arena_str(&st->arena, text_str(&words), words.len, err);
    text_free(&words);
    return x->c.words != NULL;
}

/* All metrics of one (task, model); named: the user asked for this model, so what does not fit is an error. */
static bool add_pair(struct study *st, const struct arm *model, const char *task, const struct report_options *o,
                     bool named, bool *found, struct error *err)
{
    const struct group *b, *m;
    const char **others;
    int n_others;
    struct error why = { 0 };
    if (!pair_groups(st, &st->base, model, task, o->common_items, &b, &m, found, &why)) {
        if (!named)
            return add_refused(st, model, task, why.text, err);
        return fail(err, why.status, "%s", why.text);
    }
    if (!*found)
        return true;
    if (!add_metric(st, model, b, m, b->metric, false, err) || !other_metrics(st, b, &others, &n_others, err))
        return false;
    for (int i = 0; i < n_others; i++)
        if (!add_metric(st, model, b, m, others[i], true, err))
            return false;
    return true;
}

/* The named models, or every other (label, weights) in the database in order of its first run. */
static bool find_models(struct study *st, const struct report_options *o, struct error *err)
{
    int room = o->n_models > st->n_groups ? o->n_models : st->n_groups;
    st->models = arena_new(&st->arena, ((size_t)room + 1) * sizeof *st->models, err);
    if (!st->models)
        return false;
    for (int i = 0; i < o->n_models; i++)
        if (!arm_resolve(st, o->models[i], &st->models[st->n_models++], err))
            return false;
    for (int i = 0; o->n_models == 0 && i < st->n_groups; i++) {
        const struct group *g = &st->groups[i];
        bool seen = strcmp(g->label, st->base.label) == 0 && strcmp(g->sha256, st->base.sha256) == 0;
        for (int k = 0; k < st->n_models; k++)
            seen |= strcmp(g->label, st->models[k].label) == 0 && strcmp(g->sha256, st->models[k].sha256) == 0;
        if (!seen)
            st->models[st->n_models++] = (struct arm){ g->label, g->sha256, 0, g->label };
    }
    for (int i = 0; i < st->n_models; i++)          /* one label, several weights: tell them apart by digest */
        for (int k = 0; k < st->n_models; k++)
            if (i != k && strcmp(st->models[i].shown, st->models[k].shown) == 0 &&
                strcmp(st->models[i].sha256, st->models[k].sha256) != 0) {
                struct text t = { 0 };
                text_printf(&t, "%s %.8s", st->models[i].label, st->models[i].sha256);
                st->models[i].shown = arena_str(&st->arena, text_str(&t), t.len, err);
                text_free(&t);
                if (!st->models[i].shown)
                    return false;
            }
    return true;
}

static bool check_models(struct study *st, struct error *err)
{
    for (int i = 0; i < st->n_models; i++) {
        const struct arm *m = &st->models[i];
        if (strcmp(m->label, st->base.label) == 0 && strcmp(m->sha256, st->base.sha256) == 0 && m->run == st->base.run)
            return fail(err, STATUS_INPUT, "%s is the base and cannot be compared with itself", m->shown);
    }
    return st->n_models > 0 || fail(err, STATUS_INPUT, "the database has no model besides the base %s", st->base.shown);
}

static bool check_task(struct study *st, const char *task, const char **tasks, int n, struct error *err)
{
    for (int i = 0; i < n; i++)
        if (strcmp(tasks[i], task) == 0)
            return true;
    const char *near = nearest_word(task, tasks, (size_t)n);
    return fail(err, STATUS_INPUT, "%s has no run of task \"%s\"%s%s%s", st->base.shown, task, near ? "; the nearest is \"" : "",
                near ? near : "", near ? "\"" : "");
}

static bool add_all(struct study *st, const struct report_options *o, struct error *err)
{
    const char **tasks;
    int n_tasks;
    if (!arm_tasks(st, &st->base, &tasks, &n_tasks, err) || (o->task && !check_task(st, o->task, tasks, n_tasks, err)))
        return false;
    for (int m = 0; m < st->n_models; m++) {
        bool any = false;
        for (int t = 0; t < n_tasks; t++) {
            bool found = false;
            if (o->task && strcmp(o->task, tasks[t]) != 0)
                continue;
            if (!add_pair(st, &st->models[m], tasks[t], o, o->n_models > 0, &found, err))
                return false;
            any |= found;
        }
        if (!any && o->n_models > 0)
            return fail(err, STATUS_INPUT, "%s and the base %s have no run of %s%s in common", st->models[m].shown,
                        st->base.shown, o->task ? "task " : "any task", o->task ? o->task : "");
    }
    return st->n > 0 || fail(err, STATUS_INPUT, "no model shares a task with the base %s", st->base.shown);
}

static int model_order(const struct study *st, const struct contrast *x)
{
    int i = 0;
    while (i < st->n_models && strcmp(st->models[i].shown, x->c.model) != 0)
        i++;
    return i;
}

/* Primary rows first, then by task, metric and the models' given order. */
static int compare_contrasts(const struct study *st, const struct contrast *x, const struct contrast *y)
{
    int by = (int)x->c.exploratory - (int)y->c.exploratory;
    by = by ? by : strcmp(x->c.task, y->c.task);
    by = by || x->c.refused || y->c.refused ? by : strcmp(x->c.metric, y->c.metric);
    return by ? by : model_order(st, x) - model_order(st, y);
}

static void sort_contrasts(struct study *st)
{
    for (int i = 1; i < st->n; i++) {           /* few, and nearly in order */
        struct contrast x = st->contrasts[i];
        int k = i;
        for (; k > 0 && compare_contrasts(st, &st->contrasts[k - 1], &x) > 0; k--)
            st->contrasts[k] = st->contrasts[k - 1];
        st->contrasts[k] = x;
    }
}

bool study_make(struct study *st, struct store *s, const struct report_options *o, struct error *err)
{
    *st = (struct study){ .s = s, .common = o->common_items,
                          .margin = (o->margin > 0 ? o->margin : 1) / 100, .alpha = o->alpha > 0 ? o->alpha : .05 };
    bool ok = (o->base && *o->base) || fail(err, STATUS_USAGE, "no base model was named");
    ok = ok && groups_read(st, err) && arm_resolve(st, o->base, &st->base, err) && find_models(st, o, err) &&
         check_models(st, err) && add_all(st, o, err);
    if (ok) {
        sort_contrasts(st);
        ok = contrasts_judge(st, err);
    }
    if (!ok)
        study_free(st);
    return ok;
}

void study_free(struct study *st)
{
    arena_free(&st->arena);
    *st = (struct study){ 0 };
}

/* The comparisons are handed out with the study that their strings live in standing before them. */
struct handed_out {
    struct study study;
    struct comparison list[];
};

bool report_compare(struct store *s, const struct report_options *o, struct comparison **out, int *n, struct error *err)
{
    struct study st;
    *out = NULL;
    *n = 0;
    if (!study_make(&st, s, o, err))
        return false;
    struct handed_out *h = mem_new(1, sizeof *h + (size_t)st.n * sizeof h->list[0], err);
    if (!h) {
        study_free(&st);
        return false;
    }
    h->study = st;
    for (int i = 0; i < st.n; i++)
        h->list[i] = st.contrasts[i].c;
    *out = h->list;
    *n = st.n;
    return true;
}

void report_compare_free(struct comparison *c, int n)
{
    (void)n;
    if (!c)
        return;
    struct handed_out *h = (struct handed_out *)(void *)((char *)c - offsetof(struct handed_out, list));
    study_free(&h->study);
    free(h);
}
