/* groups.c - which runs stand behind a name, and which of them may be compared. */
#include "report/study.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool sql_fail(struct study *st, struct error *err)
{
    return fail(err, STATUS_INPUT, "reading the database: %s", sqlite3_errmsg(store_db(st->s)));
}

static bool prepare(struct study *st, const char *sql, sqlite3_stmt **out, struct error *err)
{
    return sqlite3_prepare_v2(store_db(st->s), sql, -1, out, NULL) == SQLITE_OK || sql_fail(st, err);
}

/* One row a column of the query below. */
enum { TEXT, INT, I64, REAL };
static const struct {
    const char *sql;
    int kind;
    size_t offset;
} columns[] = {
#define COLUMN(sql, kind, member) { sql, kind, offsetof(struct group, member) }
    COLUMN("model", TEXT, label),
    COLUMN("sha256", TEXT, sha256),
    COLUMN("path", TEXT, path),
    COLUMN("arch", TEXT, arch),
    COLUMN("recipe", TEXT, recipe),
    COLUMN("format", TEXT, format),
    COLUMN("method", TEXT, method),
    COLUMN("tokenizer_hash", TEXT, tokenizer_hash),
    COLUMN("template_name", TEXT, template_name),
    COLUMN("task", TEXT, task),
    COLUMN("task_version", TEXT, task_version),
    COLUMN("metric", TEXT, metric),
    COLUMN("prompt_mode", TEXT, prompt_mode),
    COLUMN("seed", TEXT, seed),
    COLUMN("act", TEXT, act),
    COLUMN("tag", TEXT, tag),
    COLUMN("group_concat(DISTINCT program_version)", TEXT, program_version),
    COLUMN("group_concat(DISTINCT git_commit)", TEXT, commit),
    COLUMN("group_concat(DISTINCT kernels)", TEXT, kernels),
    COLUMN("group_concat(run)", TEXT, runs),
    COLUMN("bits_per_weight", REAL, bits_per_weight),
    COLUMN("sum(seconds)", REAL, seconds),
    COLUMN("shots", INT, shots),
    COLUMN("item_limit", INT, limit),
    COLUMN("CAST(substr(shard, instr(shard, '/') + 1) AS INTEGER)", INT, shards),
    COLUMN("sum(items)", INT, items),
    COLUMN("sum(items_expected)", INT, expected),
    COLUMN("min(finished)", INT, finished),
    COLUMN("max(run)", I64, last_run),
    COLUMN("min(started_at)", I64, started_at),
    COLUMN("file_bytes", I64, file_bytes),
    COLUMN("max(peak_bytes)", I64, peak_bytes),
    COLUMN("sum(prompt_tokens + new_tokens)", I64, tokens),
    COLUMN("sum(score * items) / sum(items)", REAL, score),
#undef COLUMN
};

static bool read_group(struct study *st, sqlite3_stmt *q, struct group *g, struct error *err)
{
    for (int i = 0; i < (int)ARRAY_LEN(columns); i++) {
        void *p = (char *)g + columns[i].offset;
        if (columns[i].kind == INT) {
            *(int *)p = sqlite3_column_int(q, i);
        } else if (columns[i].kind == I64) {
            *(int64_t *)p = sqlite3_column_int64(q, i);
        } else if (columns[i].kind == REAL) {
            *(double *)p = sqlite3_column_double(q, i);
        } else {
            const char *s = (const char *)sqlite3_column_text(q, i);
            s = arena_str(&st->arena, s ? s : "", s ? strlen(s) : 0, err);
            if (!s)
                return false;
            memcpy(p, &s, sizeof s);
        }
    }
    return true;
}

bool groups_read(struct study *st, struct error *err)
{
    struct text sql = { 0 };
    text_puts(&sql, "SELECT ");
    for (size_t i = 0; i < ARRAY_LEN(columns); i++)
        text_printf(&sql, "%s%s", i ? ", " : "", columns[i].sql);
    text_puts(&sql, " FROM (SELECT * FROM v_runs ORDER BY run) GROUP BY model, sha256, tokenizer_hash, template_name, task, "
                    "task_version, metric, prompt_mode, seed, act, tag, shots, item_limit, substr(shard, instr(shard, '/')) "
                    "ORDER BY min(run)");
    sqlite3_stmt *q = NULL;
    bool ok = text_ok(&sql, err) && prepare(st, text_str(&sql), &q, err);
    text_free(&sql);
    struct group *rows = NULL;
    size_t cap = 0;
    int rc, n = 0;
    while (ok && (rc = sqlite3_step(q)) != SQLITE_DONE)
        ok = (rc == SQLITE_ROW || sql_fail(st, err)) && mem_grow(&rows, &cap, (size_t)n + 1, sizeof *rows, err) &&
             read_group(st, q, &rows[n++], err);
    sqlite3_finalize(q);
    st->groups = ok ? arena_new(&st->arena, ((size_t)n + 1) * sizeof *rows, err) : NULL;
    st->n_groups = n;
    if (st->groups && n)
        memcpy(st->groups, rows, (size_t)n * sizeof *rows);
    free(rows);
    return st->groups != NULL;
}

/* ---- names ---- */

static bool has_run(const struct group *g, int64_t run)
{
    for (const char *p = g->runs; p; p = strchr(p, ','), p = p ? p + 1 : NULL)
        if (strtoll(p, NULL, 10) == run)
            return true;
    return false;
}

static bool belongs(const struct group *g, const struct arm *a)
{
    return strcmp(g->label, a->label) == 0 && strcmp(g->sha256, a->sha256) == 0 && (!a->run || has_run(g, a->run));
}

static bool ambiguous(const struct study *st, const char *label, struct error *err)
{
    struct text list = { 0 };
    for (int i = 0; i < st->n_groups; i++) {
        const struct group *g = &st->groups[i];
        if (strcmp(g->label, label) == 0)
            text_printf(&list, "%s%.12s (run %s, %s)", list.len ? "; " : "", g->sha256, g->runs, g->task);
    }
    fail(err, STATUS_INPUT, "\"%s\" names several files of weights: %s. Say a run number or the start of a SHA-256", label,
         text_str(&list));
    text_free(&list);
    return false;
}

static bool unknown_model(const struct study *st, const char *name, struct error *err)
{
    const char **labels = calloc((size_t)st->n_groups + 1, sizeof *labels);
    struct text list = { 0 };
    size_t n = 0;
    for (int i = 0; labels && i < st->n_groups; i++) {
        bool seen = false;
        for (size_t k = 0; k < n; k++)
            seen |= strcmp(labels[k], st->groups[i].label) == 0;
        if (!seen) {
            text_printf(&list, "%s%s", n ? ", " : "", st->groups[i].label);
            labels[n++] = st->groups[i].label;
        }
    }
    const char *near = labels ? nearest_word(name, labels, n) : NULL;
    if (near)
        fail(err, STATUS_INPUT, "no model or run \"%s\" in the database; the nearest is \"%s\"", name, near);
    else
        fail(err, STATUS_INPUT, "no model or run \"%s\" in the database; it has: %s", name, n ? text_str(&list) : "none");
    free(labels);
    text_free(&list);
    return false;
}

static const struct group *by_label(const struct study *st, const char *name, bool *several)
{
    const struct group *found = NULL;
    *several = false;
    for (int i = 0; i < st->n_groups; i++)
        if (strcmp(st->groups[i].label, name) == 0) {
            *several |= found && strcmp(found->sha256, st->groups[i].sha256) != 0;
            found = &st->groups[i];
        }
    return found;
}

static const struct group *by_digest(const struct study *st, const char *name, bool *several)
{
    const struct group *found = NULL;
    *several = false;
    for (int i = 0; strlen(name) >= 6 && i < st->n_groups; i++)
        if (str_starts(st->groups[i].sha256, name)) {
            *several |= found && strcmp(found->sha256, st->groups[i].sha256) != 0;
            found = &st->groups[i];
        }
    return found;
}

static const struct group *by_run(const struct study *st, int64_t run)
{
    for (int i = 0; i < st->n_groups; i++)
        if (has_run(&st->groups[i], run))
            return &st->groups[i];
    return NULL;
}

bool arm_resolve(struct study *st, const char *name, struct arm *out, struct error *err)
{
    bool several;
    int64_t run = 0;
    const struct group *g = by_label(st, name, &several);
    if (g && several)
        return ambiguous(st, name, err);
    if (!g && parse_int(name, 1, INT64_MAX, &run))
        g = by_run(st, run);
    if (!g) {
        run = 0;
        g = by_digest(st, name, &several);
        if (g && several)
            return fail(err, STATUS_INPUT, "several models' SHA-256 start with \"%s\"", name);
    }
    if (!g)
        return unknown_model(st, name, err);
    *out = (struct arm){ g->label, g->sha256, run, g->label };
    if (run) {
        char shown[300];
        int len = snprintf(shown, sizeof shown, "%.250s #%lld", g->label, (long long)run);
        out->shown = arena_str(&st->arena, shown, (size_t)len, err);
    }
    return out->shown != NULL;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

bool arm_tasks(struct study *st, const struct arm *a, const char ***tasks, int *n, struct error *err)
{
    const char **list = arena_new(&st->arena, ((size_t)st->n_groups + 1) * sizeof *list, err);
    *n = 0;
    for (int i = 0; list && i < st->n_groups; i++) {
        bool seen = !belongs(&st->groups[i], a);
        for (int k = 0; k < *n; k++)
            seen |= strcmp(list[k], st->groups[i].task) == 0;
        if (!seen)
            list[(*n)++] = st->groups[i].task;
    }
    if (list && *n)
        qsort(list, (size_t)*n, sizeof *list, compare_names);
    *tasks = list;
    return list != NULL;
}

/* ---- which of them fit ---- */

/* What must be equal, in the order in which it is worth telling. */
static const struct {
    const char *what;
    size_t text, number;        /* offset of one of the two, the other 0 */
} must_match[] = {
    { "the task version", offsetof(struct group, task_version), 0 },
    { "the activation mode (--act)", offsetof(struct group, act), 0 },
    { "the prompt mode (--mode)", offsetof(struct group, prompt_mode), 0 },
    { "the number of shots", 0, offsetof(struct group, shots) },
    { "the chat template", offsetof(struct group, template_name), 0 },
    { "the primary metric", offsetof(struct group, metric), 0 },
    { "the tokenizer", offsetof(struct group, tokenizer_hash), 0 },
};

static const char *text_at(const struct group *g, size_t offset)
{
    const char *s;
    memcpy(&s, (const char *)g + offset, sizeof s);
    return s;
}

static int number_at(const struct group *g, size_t offset)
{
    return *(const int *)((const char *)g + offset);
}

static bool row_matches(size_t row, const struct group *a, const struct group *b)
{
    return must_match[row].text ? strcmp(text_at(a, must_match[row].text), text_at(b, must_match[row].text)) == 0
                                : number_at(a, must_match[row].number) == number_at(b, must_match[row].number);
}

static void put_value(struct text *t, size_t row, const struct group *g)
{
    if (must_match[row].text) {
        const char *s = text_at(g, must_match[row].text);
        text_puts(t, *s ? s : "none");
    } else {
        text_printf(t, "%d", number_at(g, must_match[row].number));
    }
}

/* How badly two groups fit: what must match counts most, then what usually should. */
static int misfit(const struct group *a, const struct group *b)
{
    int hard = 0;
    for (size_t i = 0; i < ARRAY_LEN(must_match); i++)
        hard += !row_matches(i, a, b);
    return 100 * hard + 10 * (a->limit != b->limit) + 4 * (strcmp(a->seed, b->seed) != 0) + (strcmp(a->tag, b->tag) != 0) +
           2 * (!a->finished + !b->finished);
}

static bool better_pair(const struct group *b, const struct group *m, const struct group *old_b, const struct group *old_m)
{
    if (!old_b)
        return true;
    int fit = misfit(b, m), old_fit = misfit(old_b, old_m);
    if (fit != old_fit)
        return fit < old_fit;
    int items = b->items < m->items ? b->items : m->items, old_items = old_b->items < old_m->items ? old_b->items : old_m->items;
    if (items != old_items)
        return items > old_items;
    return b->last_run != old_b->last_run ? b->last_run > old_b->last_run : m->last_run > old_m->last_run;
}

static bool check_settings(const struct arm *base, const struct group *b, const struct arm *model, const struct group *m,
                           struct error *err)
{
    for (size_t i = 0; i < ARRAY_LEN(must_match); i++)
        if (!row_matches(i, b, m)) {
            struct text found = { 0 }, expected = { 0 };
            put_value(&found, i, m);
            put_value(&expected, i, b);
            fail(err, STATUS_INPUT,
                 "task %s: %s differs: %s has %s (run %s), the base %s has %s (run %s); such runs are not compared", b->task,
                 must_match[i].what, model->shown, text_str(&found), m->runs, base->shown, text_str(&expected), b->runs);
            text_free(&found);
            text_free(&expected);
            return false;
        }
    return true;
}

static bool check_finished(const struct arm *a, const struct group *g, struct error *err)
{
    if (g->finished && g->items >= g->expected)
        return true;
    return fail(err, STATUS_INPUT, "task %s: the run of %s (run %s) is unfinished: %d of %d items; say the run again to finish "
                "it, or compare the common items only", g->task, a->shown, g->runs, g->items, g->expected);
}

/* The same items with the same prompts on both sides. */
static bool check_items(struct study *st, const struct arm *base, const struct group *b, const struct arm *model,
                        const struct group *m, bool common, struct error *err)
{
    struct text sql = { 0 };
    text_printf(&sql,
                "SELECT count(*), sum(x.prompt_hash <> y.prompt_hash), "
                "min(CASE WHEN x.prompt_hash <> y.prompt_hash THEN x.item END) "
                "FROM items x JOIN items y ON y.item = x.item AND y.run IN (%s) WHERE x.run IN (%s)", m->runs, b->runs);
    sqlite3_stmt *q = NULL;
    bool ok = text_ok(&sql, err) && prepare(st, text_str(&sql), &q, err) && (sqlite3_step(q) == SQLITE_ROW || sql_fail(st, err));
    int both = ok ? sqlite3_column_int(q, 0) : 0, differ = ok ? sqlite3_column_int(q, 1) : 0;
    if (ok && differ)
        ok = fail(err, STATUS_INPUT, "task %s: %d of %d common items were asked with other prompt tokens by %s (run %s) than by "
                  "the base %s (run %s), first item %s; such runs are not compared", b->task, differ, both, model->shown, m->runs,
                  base->shown, b->runs, (const char *)sqlite3_column_text(q, 2));
    else if (ok && both == 0)
        ok = fail(err, STATUS_INPUT, "task %s: %s (run %s) and the base %s (run %s) have no item in common", b->task,
                  model->shown, m->runs, base->shown, b->runs);
    else if (ok && !common && (both < b->items || both < m->items))
        ok = fail(err, STATUS_INPUT, "task %s: %s (run %s) has %d items, the base %s (run %s) has %d, %d in common; run both with "
                  "the same limit and shards, or compare the common items only", b->task, model->shown, m->runs, m->items,
                  base->shown, b->runs, b->items, both);
    sqlite3_finalize(q);
    text_free(&sql);
    return ok;
}

bool pair_groups(struct study *st, const struct arm *base, const struct arm *model, const char *task, bool common,
                 const struct group **b, const struct group **m, bool *found, struct error *err)
{
    *b = *m = NULL;
    for (int i = 0; i < st->n_groups; i++)
        for (int k = 0; k < st->n_groups; k++) {
            const struct group *x = &st->groups[i], *y = &st->groups[k];
            if (x != y && strcmp(x->task, task) == 0 && strcmp(y->task, task) == 0 && belongs(x, base) && belongs(y, model) &&
                better_pair(x, y, *b, *m)) {
                *b = x;
                *m = y;
            }
        }
    *found = *b != NULL;
    if (!*found)
        return true;
    return check_settings(base, *b, model, *m, err) &&
           (common || (check_finished(base, *b, err) && check_finished(model, *m, err))) &&
           check_items(st, base, *b, model, *m, common, err);
}

/* ---- the pairs ---- */

static const char *kept_text(struct study *st, sqlite3_stmt *q, int at, bool *ok)
{
    const char *s = (const char *)sqlite3_column_text(q, at);
    if (!s)
        return NULL;
    s = arena_str(&st->arena, s, strlen(s), NULL);
    *ok &= s != NULL;
    return s;
}

static double number_or_nan(sqlite3_stmt *q, int at)
{
    return sqlite3_column_type(q, at) == SQLITE_NULL ? NAN : sqlite3_column_double(q, at);
}

static bool read_pair(struct study *st, sqlite3_stmt *q, struct pair *p)
{
    bool ok = true;
    *p = (struct pair){
        .item = kept_text(st, q, 0, &ok),
        .group = kept_text(st, q, 1, &ok),
        .gold = kept_text(st, q, 2, &ok),
        .base_answer = kept_text(st, q, 3, &ok),
        .answer = kept_text(st, q, 4, &ok),
        .base = sqlite3_column_double(q, 5),
        .model = sqlite3_column_double(q, 6),
        .base_margin = number_or_nan(q, 7),
        .margin = number_or_nan(q, 8),
        .base_truncated = sqlite3_column_int(q, 9),
        .truncated = sqlite3_column_int(q, 10),
        .choices = sqlite3_column_int(q, 11),
    };
    return ok;
}

bool pairs_read(struct study *st, const struct group *b, const struct group *m, const char *metric, struct pair **out,
                int *n, struct error *err)
{
    struct text sql = { 0 };
    text_printf(&sql,
                "SELECT x.item, x.group_name, x.gold, x.answer, y.answer, xs.score, ys.score, x.margin, y.margin, "
                "x.finish IN ('length', 'too-long'), y.finish IN ('length', 'too-long'), (SELECT count(*) FROM choices WHERE "
                "choices.item = x.id) "
                "FROM items x JOIN items y ON y.item = x.item AND y.prompt_hash = x.prompt_hash AND y.run IN (%s) "
                "JOIN scores xs ON xs.item = x.id AND xs.metric = ?1 JOIN scores ys ON ys.item = y.id AND ys.metric = ?1 "
                "WHERE x.run IN (%s) ORDER BY x.item",
                m->runs, b->runs);
    sqlite3_stmt *q = NULL;
    bool ok = text_ok(&sql, err) && prepare(st, text_str(&sql), &q, err);
    text_free(&sql);
    struct pair *rows = NULL;
    size_t cap = 0;
    int rc;
    *n = 0;
    if (ok)
        sqlite3_bind_text(q, 1, metric, -1, SQLITE_STATIC);
    while (ok && (rc = sqlite3_step(q)) != SQLITE_DONE)
        ok = (rc == SQLITE_ROW || sql_fail(st, err)) && mem_grow(&rows, &cap, (size_t)*n + 1, sizeof *rows, err) &&
             (read_pair(st, q, &rows[(*n)++]) || fail(err, STATUS_MEMORY, "out of memory"));
    sqlite3_finalize(q);
    *out = ok ? arena_new(&st->arena, ((size_t)*n + 1) * sizeof *rows, err) : NULL;
    if (*out && *n)
        memcpy(*out, rows, (size_t)*n * sizeof *rows);
    free(rows);
    return *out != NULL;
}
