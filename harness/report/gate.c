/* gate.c - did quality move between an accepted run and a new one?  Three questions, the cheap and certain first:
 * are all rows the same, are there more flips than allowed, and is the score still within the margin. */
#include "report/study.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LISTED_ITEMS = 50, REPLICATES = 20000, SEED = 20 };

struct change {
    const char *item, *gold, *old_answer, *new_answer;
    double old_score, new_score, old_margin;
};

struct gate_task {
    const struct group *base, *model;
    struct contrast x;
    int identical, moved, changed;      /* moved: other log-probabilities or margins, same answers */
    struct change *changes;             /* [changed] */
    struct interval inner;              /* 90 % of delta */
    bool within;
};

struct gate {
    struct study st;
    struct arm candidate;
    struct gate_task *tasks;
    int n;
    int flips;
    double pooled, max_drop;            /* one-sided p, NAN where not needed */
    enum gate_result result;
    const char *why;
};

static const char *text_or_null(struct gate *g, sqlite3_stmt *q, int at, bool *ok)
{
    const char *s = (const char *)sqlite3_column_text(q, at);
    if (!s)
        return NULL;
    s = arena_str(&g->st.arena, s, strlen(s), NULL);
    *ok &= s != NULL;
    return s;
}

static bool take_row(struct gate *g, struct gate_task *t, sqlite3_stmt *q)
{
    bool ok = true;
    if (sqlite3_column_int(q, 7))
        t->changes[t->changed++] = (struct change){
            text_or_null(g, q, 0, &ok), text_or_null(g, q, 1, &ok), text_or_null(g, q, 2, &ok), text_or_null(g, q, 3, &ok),
            sqlite3_column_double(q, 4), sqlite3_column_double(q, 5),
            sqlite3_column_type(q, 6) == SQLITE_NULL ? NAN : sqlite3_column_double(q, 6),
        };
    else if (sqlite3_column_int(q, 8))
        t->moved++;
    else
        t->identical++;
    return ok;
}

/* Row by row: what was answered, and whether even the numbers behind the answer are the same bits. */
static bool compare_rows(struct gate *g, struct gate_task *t, struct error *err)
{
    struct text sql = { 0 };
    sqlite3_stmt *q = NULL;
    sqlite3 *db = store_db(g->st.s);
    text_printf(&sql,
                "SELECT x.item, x.gold, x.answer, y.answer, xs.score, ys.score, x.margin, "
                "x.answer IS NOT y.answer OR x.output IS NOT y.output OR x.finish <> y.finish OR xs.score <> ys.score, "
                "x.margin IS NOT y.margin OR EXISTS (SELECT 1 FROM choices a JOIN choices b ON b.item = y.id AND "
                "b.position = a.position WHERE a.item = x.id AND a.logprob <> b.logprob) "
                "FROM items x JOIN items y ON y.item = x.item AND y.run IN (%s) "
                "JOIN scores xs ON xs.item = x.id AND xs.metric = ?1 JOIN scores ys ON ys.item = y.id AND ys.metric = ?1 "
                "WHERE x.run IN (%s) ORDER BY x.item", t->model->runs, t->base->runs);
    t->changes = arena_new(&g->st.arena, ((size_t)t->x.c.n + 1) * sizeof *t->changes, err);
    bool ok = t->changes && text_ok(&sql, err) &&
              (sqlite3_prepare_v2(db, text_str(&sql), -1, &q, NULL) == SQLITE_OK ||
               fail(err, STATUS_INPUT, "comparing rows: %s", sqlite3_errmsg(db)));
    text_free(&sql);
    if (ok)
        sqlite3_bind_text(q, 1, t->base->metric, -1, SQLITE_STATIC);
    for (int rc; ok && (rc = sqlite3_step(q)) != SQLITE_DONE;)
        ok = (rc == SQLITE_ROW || fail(err, STATUS_INPUT, "comparing rows: %s", sqlite3_errmsg(db))) &&
             (take_row(g, t, q) || fail(err, STATUS_MEMORY, "out of memory"));
    sqlite3_finalize(q);
    return ok;
}

static struct interval inner_of(const struct contrast *x, double alpha)
{
    const struct comparison *c = &x->c;
    if (c->binary)
        return tango(c->won, c->lost, c->n, 1 - 2 * alpha);
    double half = (c->delta_hi - c->delta) / student_quantile(.975, c->n - 1) * student_quantile(1 - alpha, c->n - 1);
    return (struct interval){ c->delta - half, c->delta + half };
}

static bool add_task(struct gate *g, const char *task, struct error *err)
{
    struct gate_task *t = &g->tasks[g->n];
    bool found;
    if (!pair_groups(&g->st, &g->st.base, &g->candidate, task, false, &t->base, &t->model, &found, err))
        return false;
    if (!found && g->candidate.run)
        return true;                    /* the candidate is one run; the baseline's other tasks are not asked about */
    if (!found)
        return fail(err, STATUS_INPUT, "the candidate %s has no run of task %s, which the baseline %s has", g->candidate.shown,
                    task, g->st.base.shown);
    if (!pairs_read(&g->st, t->base, t->model, t->base->metric, &t->x.pairs, &t->x.c.n, err))
        return false;
    if (t->x.c.n < t->base->items)
        return fail(err, STATUS_INPUT, "task %s: %d of %d items have a score for \"%s\" on both sides", task, t->x.c.n,
                    t->base->items, t->base->metric);
    g->n++;
    if (!contrast_measure(&t->x, g->st.alpha, err) || !compare_rows(g, t, err))
        return false;
    t->inner = inner_of(&t->x, g->st.alpha);
    t->within = t->inner.lo > -g->st.margin;
    g->flips += t->x.c.lost + t->x.c.won;
    return true;
}

static bool add_tasks(struct gate *g, struct error *err)
{
    const char **tasks;
    int n;
    if (!arm_tasks(&g->st, &g->st.base, &tasks, &n, err))
        return false;
    g->tasks = arena_new(&g->st.arena, ((size_t)n + 1) * sizeof *g->tasks, err);
    for (int i = 0; g->tasks && i < n; i++)
        if (!add_task(g, tasks[i], err))
            return false;
    if (g->tasks && g->n == 0)
        return fail(err, STATUS_INPUT, "the baseline %s and the candidate %s have no task in common", g->st.base.shown,
                    g->candidate.shown);
    return g->tasks != NULL;
}

/* Two looks at the whole suite, each at alpha / 2: everything together, and the task that fell most. */
static bool significant_drop(struct gate *g, struct error *err)
{
    struct discordant *d = mem_new((size_t)g->n, sizeof *d, err);
    double worst = 1;
    if (!d)
        return false;
    for (int i = 0; i < g->n; i++) {
        const struct comparison *c = &g->tasks[i].x.c;
        d[i] = (struct discordant){ c->won, c->lost, c->n };
        if (!c->binary && c->delta < 0)
            worst = fmin(worst, c->p / 2 * g->n);       /* fractions: one-sided t, Bonferroni over the tasks */
    }
    g->pooled = pooled_worse(d, g->n);
    g->max_drop = fmin(worst, max_drop_worse(d, g->n, REPLICATES, SEED));
    free(d);
    return true;
}

static bool judge(struct gate *g, int max_flips, struct error *err)
{
    bool identical = true, within = true, moved = false;
    for (int i = 0; i < g->n; i++) {
        identical &= g->tasks[i].changed == 0;
        moved |= g->tasks[i].moved > 0;
        within &= g->tasks[i].within;
    }
    g->pooled = g->max_drop = NAN;
    if (identical) {
        g->result = GATE_PASS;
        g->why = moved ? "every answer is the same; some log-probabilities moved" : "every row is identical";
        return true;
    }
    if (max_flips >= 0 && g->flips > max_flips) {
        g->result = GATE_REGRESSION;
        g->why = "more items flipped than allowed";
        return true;
    }
    if (within) {
        g->result = GATE_PASS;
        g->why = "answers changed; every score stays within the margin";
        return true;
    }
    if (!significant_drop(g, err))
        return false;
    bool drop = g->pooled < g->st.alpha / 2 || g->max_drop < g->st.alpha / 2;
    g->result = drop ? GATE_REGRESSION : GATE_CANNOT_TELL;
    g->why = drop ? "the score fell, and by more than the margin may be" :
                    "answers changed; the items are too few to show that the score stays within the margin";
    return true;
}

/* ---- output ---- */

static const char *const result_names[] = { [GATE_PASS] = "pass", [GATE_REGRESSION] = "regression",
                                            [GATE_CANNOT_TELL] = "cannot tell" };

static const char *answer(const char *s)
{
    return s ? s : "(invalid)";
}

static const char *right_or_wrong(double score)
{
    return score >= 1 ? "right" : score <= 0 ? "wrong" : "partly";
}

static void print_change(FILE *out, const struct change *h)
{
    bool same = h->old_answer == h->new_answer || (h->old_answer && h->new_answer && strcmp(h->old_answer, h->new_answer) == 0);
    fprintf(out, "  %-32s gold %s: ", h->item, h->gold);
    if (same && h->old_score == h->new_score)
        fprintf(out, "%s (%s), other output", answer(h->old_answer), right_or_wrong(h->old_score));
    else
        fprintf(out, "%s (%s) -> %s (%s)", answer(h->old_answer), right_or_wrong(h->old_score), answer(h->new_answer),
                right_or_wrong(h->new_score));
    if (!isnan(h->old_margin))
        fprintf(out, ", margin %.2f", h->old_margin);
    fputc('\n', out);
}

static const char *plural(double margin)
{
    return margin == .01 ? "" : "s";
}

static void print_task(FILE *out, const struct gate_task *t, double margin)
{
    struct text line = { 0 };
    const struct comparison *c = &t->x.c;
    fprintf(out, "%s  %s  n = %d: %d rows identical, %d with other log-probabilities only, %d changed; flips: %d lost, %d won\n",
            t->base->task, t->base->metric, c->n, t->identical, t->moved, t->changed, c->lost, c->won);
    put_points(&line, c->delta, true);
    text_puts(&line, " points, 90 % interval ");
    put_points(&line, t->inner.lo, true);
    text_puts(&line, " to ");
    put_points(&line, t->inner.hi, true);
    fprintf(out, "  score %.1f -> %.1f %%, delta %s: %s the margin of %g point%s\n", 100 * c->base_score, 100 * c->score,
            text_str(&line), t->within ? "within" : "not shown to be within", 100 * margin, plural(margin));
    text_free(&line);
    int listed = 0;
    for (int other = 0; other < 2; other++)             /* flips first */
        for (int i = 0; i < t->changed && listed < LISTED_ITEMS; i++)
            if ((t->changes[i].old_score == t->changes[i].new_score) == other) {
                print_change(out, &t->changes[i]);
                listed++;
            }
    if (t->changed > LISTED_ITEMS)
        fprintf(out, "  ... and %d more (--json lists all)\n", t->changed - LISTED_ITEMS);
}

static void print_text(FILE *out, const struct gate *g, int max_flips)
{
    fprintf(out, "gate: baseline %s, candidate %s, margin %g point%s", g->st.base.shown, g->candidate.shown,
            100 * g->st.margin, plural(g->st.margin));
    if (max_flips >= 0)
        fprintf(out, ", at most %d flips", max_flips);
    fputc('\n', out);
    for (int i = 0; i < g->n; i++)
        print_task(out, &g->tasks[i], g->st.margin);
    if (!isnan(g->pooled))
        fprintf(out, "drop over all tasks: one-sided p %.4f; largest task drop: p %.4f (each against %g)\n", g->pooled,
                g->max_drop, g->st.alpha / 2);
    fprintf(out, "result: %s: %s\n", result_names[g->result], g->why);
}

static void add_or_null(cJSON *o, const char *key, double x)
{
    if (isnan(x))
        cJSON_AddNullToObject(o, key);
    else
        cJSON_AddNumberToObject(o, key, x);
}

static cJSON *json_of_task(const struct gate_task *t)
{
    const struct comparison *c = &t->x.c;
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "task", t->base->task);
    cJSON_AddStringToObject(o, "metric", t->base->metric);
    cJSON_AddNumberToObject(o, "n", c->n);
    cJSON_AddNumberToObject(o, "identical", t->identical);
    cJSON_AddNumberToObject(o, "moved", t->moved);
    cJSON_AddNumberToObject(o, "changed", t->changed);
    cJSON_AddNumberToObject(o, "lost", c->lost);
    cJSON_AddNumberToObject(o, "won", c->won);
    cJSON_AddNumberToObject(o, "base_score", c->base_score);
    cJSON_AddNumberToObject(o, "score", c->score);
    cJSON_AddNumberToObject(o, "delta", c->delta);
    cJSON_AddNumberToObject(o, "lo_90", t->inner.lo);
    cJSON_AddNumberToObject(o, "hi_90", t->inner.hi);
    cJSON_AddBoolToObject(o, "within_margin", t->within);
    cJSON *list = cJSON_AddArrayToObject(o, "items");
    for (int i = 0; i < t->changed; i++) {
        const struct change *h = &t->changes[i];
        cJSON *e = cJSON_CreateObject();
        cJSON_AddStringToObject(e, "item", h->item);
        cJSON_AddStringToObject(e, "gold", h->gold ? h->gold : "");
        cJSON_AddItemToObject(e, "baseline", h->old_answer ? cJSON_CreateString(h->old_answer) : cJSON_CreateNull());
        cJSON_AddItemToObject(e, "candidate", h->new_answer ? cJSON_CreateString(h->new_answer) : cJSON_CreateNull());
        cJSON_AddNumberToObject(e, "baseline_score", h->old_score);
        cJSON_AddNumberToObject(e, "candidate_score", h->new_score);
        add_or_null(e, "baseline_margin", h->old_margin);
        cJSON_AddItemToArray(list, e);
    }
    return o;
}

static bool print_gate_json(FILE *out, const struct gate *g, int max_flips, struct error *err)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "baseline", g->st.base.shown);
    cJSON_AddStringToObject(o, "candidate", g->candidate.shown);
    cJSON_AddNumberToObject(o, "margin", 100 * g->st.margin);
    cJSON_AddNumberToObject(o, "max_flips", max_flips);
    cJSON_AddNumberToObject(o, "flips", g->flips);
    add_or_null(o, "p_pooled", g->pooled);
    add_or_null(o, "p_max_drop", g->max_drop);
    cJSON_AddStringToObject(o, "result", result_names[g->result]);
    cJSON_AddStringToObject(o, "why", g->why);
    cJSON *tasks = cJSON_AddArrayToObject(o, "tasks");
    for (int i = 0; i < g->n; i++)
        cJSON_AddItemToArray(tasks, json_of_task(&g->tasks[i]));
    char *text = cJSON_Print(o);
    cJSON_Delete(o);
    if (!text)
        return fail(err, STATUS_MEMORY, "out of memory");
    fprintf(out, "%s\n", text);
    cJSON_free(text);
    return true;
}

static bool resolve_arms(struct gate *g, const struct gate_options *o, struct error *err)
{
    if (!groups_read(&g->st, err) || !arm_resolve(&g->st, o->baseline, &g->st.base, err) ||
        !arm_resolve(&g->st, o->candidate, &g->candidate, err))
        return false;
    const struct arm *a = &g->st.base, *b = &g->candidate;
    if (strcmp(a->label, b->label) == 0 && strcmp(a->sha256, b->sha256) == 0 && a->run == b->run)
        return fail(err, STATUS_INPUT, "baseline and candidate are both %s: a run is not compared with itself (say run numbers)",
                    a->shown);
    return true;
}

bool report_gate(struct store *s, const struct gate_options *o, FILE *out, bool json, enum gate_result *result, struct error *err)
{
    struct gate g = { .st = { .s = s, .margin = (o->margin > 0 ? o->margin : 1) / 100, .alpha = .05 } };
    bool ok = resolve_arms(&g, o, err) && add_tasks(&g, err) && judge(&g, o->max_flips, err);
    *result = ok ? g.result : GATE_CANNOT_TELL;
    if (ok && json)
        ok = print_gate_json(out, &g, o->max_flips, err);
    else if (ok)
        print_text(out, &g, o->max_flips);
    ok = ok && (!ferror(out) || fail_errno(err, "output", "cannot write"));
    study_free(&g.st);
    return ok;
}
