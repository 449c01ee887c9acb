/* rows.c - runs and items into the database and back. */
#include "store/private.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ID(member) offsetof(struct stored_run, id.member)
const struct field run_fields[] = {
    /* column            role            kind        where */
    { "label",           ROLE_MODEL_KEY, FIELD_TEXT, ID(model_label) },
    { "sha256",          ROLE_MODEL_KEY, FIELD_TEXT, ID(model_sha256) },
    { "path",            ROLE_MODEL,     FIELD_TEXT, ID(model_path) },
    { "arch",            ROLE_MODEL,     FIELD_TEXT, ID(arch) },
    { "recipe",          ROLE_MODEL,     FIELD_TEXT, ID(recipe) },
    { "format",          ROLE_MODEL,     FIELD_TEXT, ID(format) },
    { "method",          ROLE_MODEL,     FIELD_TEXT, ID(method) },
    { "bits_per_weight", ROLE_MODEL,     FIELD_REAL, ID(bits_per_weight) },
    { "file_bytes",      ROLE_MODEL,     FIELD_U64,  ID(file_bytes) },
    { "tokenizer_hash",  ROLE_KEY,       FIELD_TEXT, ID(tokenizer_hash) },
    { "template_name",   ROLE_KEY,       FIELD_TEXT, ID(template_name) },
    { "task",            ROLE_KEY,       FIELD_TEXT, ID(task) },
    { "task_version",    ROLE_KEY,       FIELD_TEXT, ID(task_version) },
    { "metric",          ROLE_KEY,       FIELD_TEXT, ID(metric) },
    { "prompt_mode",     ROLE_KEY,       FIELD_TEXT, ID(prompt_mode) },
    { "shots",           ROLE_KEY,       FIELD_INT,  ID(shots) },
    { "item_limit",      ROLE_KEY,       FIELD_INT,  ID(limit) },
    { "seed",            ROLE_KEY,       FIELD_SEED, ID(seed) },
    { "shard",           ROLE_KEY,       FIELD_TEXT, ID(shard) },
    { "act",             ROLE_KEY,       FIELD_TEXT, ID(act) },
    { "tag",             ROLE_KEY,       FIELD_TEXT, ID(tag) },
    { "program_version", ROLE_FACT,      FIELD_TEXT, ID(program_version) },
    { "git_commit",      ROLE_FACT,      FIELD_TEXT, ID(commit) },
    { "kernels",         ROLE_FACT,      FIELD_TEXT, ID(kernels) },
    { "threads",         ROLE_FACT,      FIELD_INT,  ID(threads) },
    { "command",         ROLE_FACT,      FIELD_TEXT, ID(command) },
    { "started_at",      ROLE_FACT,      FIELD_I64,  offsetof(struct stored_run, started_at) },
    { "items_expected",  ROLE_FACT,      FIELD_INT,  ID(items_expected) },
    { "finished",        ROLE_FACT,      FIELD_INT,  offsetof(struct stored_run, finished) },
    { "seconds",         ROLE_FACT,      FIELD_REAL, offsetof(struct stored_run, seconds) },
    { "prompt_tokens",   ROLE_FACT,      FIELD_I64,  offsetof(struct stored_run, prompt_tokens) },
    { "new_tokens",      ROLE_FACT,      FIELD_I64,  offsetof(struct stored_run, new_tokens) },
    { "peak_bytes",      ROLE_FACT,      FIELD_I64,  offsetof(struct stored_run, peak_bytes) },
};
const int run_field_count = (int)ARRAY_LEN(run_fields);

static bool in_model(const struct field *f)
{
    return f->role == ROLE_MODEL_KEY || f->role == ROLE_MODEL;
}

static void bind_field(sqlite3_stmt *st, int at, const struct field *f, const struct stored_run *r)
{
    const void *p = (const char *)r + f->offset;
    char seed[24];
    const char *s;
    switch (f->kind) {
    case FIELD_TEXT:
        memcpy(&s, p, sizeof s);
        sqlite3_bind_text(st, at, s ? s : "", -1, SQLITE_TRANSIENT);
        break;
    case FIELD_SEED:
        snprintf(seed, sizeof seed, "%" PRIu64, *(const uint64_t *)p);
        sqlite3_bind_text(st, at, seed, -1, SQLITE_TRANSIENT);
        break;
    case FIELD_INT: sqlite3_bind_int(st, at, *(const int *)p); break;
    case FIELD_I64:
    case FIELD_U64: sqlite3_bind_int64(st, at, *(const int64_t *)p); break;
    case FIELD_REAL: sqlite3_bind_double(st, at, *(const double *)p); break;
    }
}

static bool read_field(sqlite3_stmt *st, int at, const struct field *f, struct stored_run *r, struct arena *a,
                       struct error *err)
{
    void *p = (char *)r + f->offset;
    const char *s;
    switch (f->kind) {
    case FIELD_TEXT:
        s = (const char *)sqlite3_column_text(st, at);
        s = arena_str(a, s ? s : "", s ? (size_t)sqlite3_column_bytes(st, at) : 0, err);
        memcpy(p, &s, sizeof s);
        return s != NULL;
    case FIELD_SEED:
        s = (const char *)sqlite3_column_text(st, at);
        *(uint64_t *)p = s ? strtoull(s, NULL, 10) : 0;
        break;
    case FIELD_INT: *(int *)p = sqlite3_column_int(st, at); break;
    case FIELD_I64:
    case FIELD_U64: *(int64_t *)p = sqlite3_column_int64(st, at); break;
    case FIELD_REAL: *(double *)p = sqlite3_column_double(st, at); break;
    }
    return true;
}

/* ---- runs ---- */

static bool model_find_or_add(struct store *s, const struct stored_run *r, int64_t *model, struct error *err)
{
    struct text sql = { 0 }, marks = { 0 };
    text_puts(&sql, "INSERT OR IGNORE INTO models (");
    int n = 0;
    for (int i = 0; i < run_field_count; i++)
        if (in_model(&run_fields[i])) {
            text_printf(&sql, "%s%s", n ? ", " : "", run_fields[i].name);
            text_puts(&marks, n++ ? ", ?" : "?");
        }
    text_printf(&sql, ") VALUES (%s)", text_str(&marks));
    sqlite3_stmt *add = NULL, *find = NULL;
    bool ok = text_ok(&sql, err) && db_prepare(s, text_str(&sql), &add, err);
    for (int i = 0, at = 1; ok && i < run_field_count; i++)
        if (in_model(&run_fields[i]))
            bind_field(add, at++, &run_fields[i], r);
    ok = ok && db_done(s, add, "adding the model", err) &&
         db_prepare(s, "SELECT id FROM models WHERE label = ? AND sha256 = ?", &find, err);
    if (ok) {
        db_bind(find, "ss", r->id.model_label, r->id.model_sha256);
        ok = sqlite3_step(find) == SQLITE_ROW || db_fail(s, "finding the model", err);
        *model = ok ? sqlite3_column_int64(find, 0) : 0;
    }
    sqlite3_finalize(add);
    sqlite3_finalize(find);
    text_free(&sql);
    text_free(&marks);
    return ok;
}

static bool run_find(struct store *s, const struct stored_run *r, int64_t model, int64_t *run, struct error *err)
{
    struct text sql = { 0 };
    text_puts(&sql, "SELECT id FROM runs WHERE model = ?");
    for (int i = 0; i < run_field_count; i++)
        if (run_fields[i].role == ROLE_KEY)
            text_printf(&sql, " AND %s = ?", run_fields[i].name);
    sqlite3_stmt *st = NULL;
    bool ok = text_ok(&sql, err) && db_prepare(s, text_str(&sql), &st, err);
    if (ok) {
        sqlite3_bind_int64(st, 1, model);
        for (int i = 0, at = 2; i < run_field_count; i++)
            if (run_fields[i].role == ROLE_KEY)
                bind_field(st, at++, &run_fields[i], r);
        int rc = sqlite3_step(st);
        *run = rc == SQLITE_ROW ? sqlite3_column_int64(st, 0) : 0;
        ok = rc == SQLITE_ROW || rc == SQLITE_DONE || db_fail(s, "finding the run", err);
    }
    sqlite3_finalize(st);
    text_free(&sql);
    return ok;
}

static bool run_add(struct store *s, const struct stored_run *r, int64_t model, int64_t *run, struct error *err)
{
    struct text sql = { 0 }, marks = { 0 };
    text_puts(&sql, "INSERT INTO runs (model");
    for (int i = 0; i < run_field_count; i++)
        if (!in_model(&run_fields[i])) {
            text_printf(&sql, ", %s", run_fields[i].name);
            text_puts(&marks, ", ?");
        }
    text_printf(&sql, ") VALUES (?%s)", text_str(&marks));
    sqlite3_stmt *st = NULL;
    bool ok = text_ok(&sql, err) && db_prepare(s, text_str(&sql), &st, err);
    if (ok) {
        sqlite3_bind_int64(st, 1, model);
        for (int i = 0, at = 2; i < run_field_count; i++)
            if (!in_model(&run_fields[i]))
                bind_field(st, at++, &run_fields[i], r);
        ok = db_done(s, st, "adding the run", err);
        *run = sqlite3_last_insert_rowid(s->db);
    }
    sqlite3_finalize(st);
    text_free(&sql);
    text_free(&marks);
    return ok;
}

bool run_find_or_add(struct store *s, const struct stored_run *r, int64_t *run, bool *found, struct error *err)
{
    int64_t model;
    if (!model_find_or_add(s, r, &model, err) || !run_find(s, r, model, run, err))
        return false;
    *found = *run != 0;
    return *found || run_add(s, r, model, run, err);
}

/* The run goes on under another build or kernel set: name every one whose rows are in it. */
static bool run_note_invocation(struct store *s, int64_t run, const struct run_identity *id, struct error *err)
{
    static const char *const sql =
        "UPDATE runs SET "
        "program_version = iif(instr(',' || program_version || ',', ',' || ?1 || ','), program_version, program_version || ',' || "
        "?1), "
        "git_commit = iif(instr(',' || git_commit || ',', ',' || ?2 || ','), git_commit, git_commit || ',' || ?2), "
        "kernels = iif(instr(',' || kernels || ',', ',' || ?3 || ','), kernels, kernels || ',' || ?3), "
        "items_expected = max(items_expected, ?4) WHERE id = ?5 AND finished = 0";
    sqlite3_stmt *st;
    if (!db_prepare(s, sql, &st, err))
        return false;
    db_bind(st, "sssii", id->program_version ? id->program_version : "", id->commit ? id->commit : "",
            id->kernels ? id->kernels : "", (int64_t)id->items_expected, run);
    bool ok = db_done(s, st, "going on with the run", err);
    sqlite3_finalize(st);
    return ok;
}

bool store_run(struct store *s, const struct run_identity *id, int64_t *run, bool *resumed, struct error *err)
{
    struct stored_run r = { .id = *id, .started_at = wall_time_s() };
    if (!store_begin(s, err))
        return false;
    if (run_find_or_add(s, &r, run, resumed, err) && (!*resumed || run_note_invocation(s, *run, id, err)))
        return store_commit(s, err);
    store_rollback(s);
    return false;
}

bool store_run_totals(struct store *s, int64_t run, bool finished, double seconds, int64_t prompt_tokens,
                      int64_t new_tokens, uint64_t peak_bytes, struct error *err)
{
    sqlite3_stmt *st;
    if (!db_prepare(s, "UPDATE runs SET finished = max(finished, ?), seconds = seconds + ?, prompt_tokens = prompt_tokens + ?, "
                       "new_tokens = new_tokens + ?, peak_bytes = max(peak_bytes, ?) WHERE id = ?", &st, err))
        return false;
    db_bind(st, "idiiii", (int64_t)finished, seconds, prompt_tokens, new_tokens, (int64_t)peak_bytes, run);
    bool ok = db_done(s, st, "closing the run", err);
    sqlite3_finalize(st);
    if (ok && sqlite3_changes(s->db) != 1)
        return fail(err, STATUS_INPUT, "%s: there is no run %lld", s->path, (long long)run);
    return ok;
}

bool runs_read(struct store *s, int64_t only, struct arena *a, struct stored_run **out, int *n, struct error *err)
{
    struct text sql = { 0 };
    text_puts(&sql, "SELECT runs.id");
    for (int i = 0; i < run_field_count; i++)
        text_printf(&sql, ", %s", run_fields[i].name);
    text_puts(&sql, " FROM runs JOIN models ON models.id = runs.model WHERE ?1 = 0 OR runs.id = ?1 ORDER BY runs.id");
    sqlite3_stmt *st = NULL;
    bool ok = text_ok(&sql, err) && db_prepare(s, text_str(&sql), &st, err);
    text_free(&sql);
    if (!ok)
        return false;
    sqlite3_bind_int64(st, 1, only);
    struct stored_run *rows = NULL;
    size_t cap = 0;
    int rc, count = 0;
    while (ok && (rc = sqlite3_step(st)) != SQLITE_DONE) {
        ok = (rc == SQLITE_ROW || db_fail(s, "reading runs", err)) &&
             mem_grow(&rows, &cap, (size_t)count + 1, sizeof *rows, err);
        if (!ok)
            break;
        struct stored_run *r = &rows[count++];
        *r = (struct stored_run){ .run = sqlite3_column_int64(st, 0) };
        for (int i = 0; ok && i < run_field_count; i++)
            ok = read_field(st, i + 1, &run_fields[i], r, a, err);
    }
    sqlite3_finalize(st);
    *n = count;
    *out = ok ? arena_new(a, ((size_t)count + 1) * sizeof *rows, err) : NULL;
    if (*out && count)
        memcpy(*out, rows, (size_t)count * sizeof *rows);
    free(rows);
    return *out != NULL;
}

/* ---- items ---- */

bool store_have_item(struct store *s, int64_t run, const char *item_id)
{
    sqlite3_stmt *st = store_statement(s, ST_HAVE_ITEM, NULL);
    if (!st)
        return false;
    db_bind(st, "is", run, item_id);
    bool have = sqlite3_step(st) == SQLITE_ROW;
    sqlite3_reset(st);
    return have;
}

/* NaN would become NULL in the database and so lose that it was wrong. */
static bool check_row(const struct item_row *row, struct error *err)
{
    for (int i = 0; i < row->n_choices; i++)
        if (isnan(row->choices[i].logprob))
            return fail(err, STATUS_INPUT, "item %s: the log-probability of choice %d is not a number", row->id, i);
    for (int i = 0; i < row->n_scores; i++)
        if (!isfinite(row->scores[i].value))
            return fail(err, STATUS_INPUT, "item %s: score %s is %g, expected a finite number", row->id,
                        row->scores[i].metric, row->scores[i].value);
    return true;
}

static bool add_children(struct store *s, int64_t item, const struct item_row *row, struct error *err)
{
    sqlite3_stmt *choice = store_statement(s, ST_ADD_CHOICE, err);
    sqlite3_stmt *extraction = choice ? store_statement(s, ST_ADD_EXTRACTION, err) : NULL;
    sqlite3_stmt *score = extraction ? store_statement(s, ST_ADD_SCORE, err) : NULL;
    bool ok = score != NULL;
    for (int i = 0; ok && i < row->n_choices; i++) {
        const struct item_choice *c = &row->choices[i];
        db_bind(choice, "iidiii", item, (int64_t)i, c->logprob, (int64_t)c->tokens, (int64_t)c->chars, (int64_t)c->bytes);
        ok = db_done(s, choice, "adding a choice", err);
    }
    for (int i = 0; ok && i < row->n_extractions; i++) {
        db_bind(extraction, "iss", item, row->extractions[i].rule, row->extractions[i].value);
        ok = db_done(s, extraction, "adding an extraction", err);
    }
    for (int i = 0; ok && i < row->n_scores; i++) {
        db_bind(score, "isd", item, row->scores[i].metric, row->scores[i].value);
        ok = db_done(s, score, "adding a score", err);
    }
    return ok;
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_number(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

/* The first thing in which two rows of one item differ, or NULL.  Children of old are sorted as the tables
 * sort them, those of new as evaluation gave them. */
static const char *row_difference(const struct item_row *old, const struct item_row *new)
{
    if (strcmp(old->prompt_hash, new->prompt_hash) != 0)
        return "prompt tokens";
    if (!same_text(old->output, new->output))
        return "output";
    if (!same_text(old->answer, new->answer))
        return "answer";
    if (!same_text(old->gold, new->gold) || !same_text(old->group, new->group) || !same_text(old->finish, new->finish) ||
        old->prompt_tokens != new->prompt_tokens || old->output_tokens != new->output_tokens)
        return "gold, group, finish reason or token counts";
    if (!same_number(old->margin, new->margin))
        return "margin";
    if (old->n_choices != new->n_choices || old->n_scores != new->n_scores || old->n_extractions != new->n_extractions)
        return "number of choices, scores or extractions";
    for (int i = 0; i < old->n_choices; i++)
        if (old->choices[i].logprob != new->choices[i].logprob || old->choices[i].tokens != new->choices[i].tokens)
            return "log-probability of a choice";
    for (int i = 0; i < new->n_scores; i++)
        for (int j = 0; j < old->n_scores; j++)
            if (same_text(old->scores[j].metric, new->scores[i].metric) && old->scores[j].value != new->scores[i].value)
                return "score";
    for (int i = 0; i < new->n_extractions; i++)
        for (int j = 0; j < old->n_extractions; j++)
            if (same_text(old->extractions[j].rule, new->extractions[i].rule) &&
                !same_text(old->extractions[j].value, new->extractions[i].value))
                return "extraction";
    return NULL;
}

static const char *or_empty(const char *s)
{
    return s ? s : "";
}

static bool check_same(struct store *s, int64_t run, const struct item_row *row, struct error *err)
{
    struct item_reader r;
    struct item_row want = *row;
    want.group = or_empty(row->group);
    want.gold = or_empty(row->gold);
    want.finish = or_empty(row->finish);
    bool more = false, ok = items_open(&r, s, run, row->id, err) && items_next(&r, &more, err);
    const char *what = ok && more ? row_difference(&r.row, &want) : NULL;
    if (what)
        ok = fail(err, STATUS_INPUT, "%s: run %lld, item %s is stored already, with another %s: nothing in the two runs' "
                  "settings differs, so one was computed differently (another build?); keep them apart with a tag",
                  s->path, (long long)run, row->id, what);
    items_close(&r);
    return ok;
}

bool store_put_item(struct store *s, int64_t run, const struct item_row *row, struct error *err)
{
    if (!check_row(row, err) || !store_begin(s, err))
        return false;
    sqlite3_stmt *st = store_statement(s, ST_ADD_ITEM, err);
    bool ok = st != NULL;
    if (ok) {
        db_bind(st, "isssissssidi", run, row->id, or_empty(row->group), row->prompt_hash, (int64_t)row->prompt_tokens,
                or_empty(row->gold), row->answer, row->output, or_empty(row->finish), (int64_t)row->output_tokens,
                row->margin, row->elapsed_ns);
        ok = db_done(s, st, "adding an item", err) || fail_in(err, "item %s", row->id);
    }
    if (ok)
        ok = sqlite3_changes(s->db) ? add_children(s, sqlite3_last_insert_rowid(s->db), row, err)
                                    : check_same(s, run, row, err);
    if (ok)
        return store_commit(s, err);
    store_rollback(s);
    return false;
}

bool items_open(struct item_reader *r, struct store *s, int64_t run, const char *only_item, struct error *err)
{
    *r = (struct item_reader){ .s = s };
    if (!db_prepare(s, "SELECT id, item, group_name, prompt_hash, prompt_tokens, gold, answer, output, finish, output_tokens, "
                       "margin, elapsed_ns FROM items WHERE run = ?1 AND (?2 IS NULL OR item = ?2) ORDER BY item",
                    &r->items, err))
        return false;
    db_bind(r->items, "is", run, only_item);
    return true;
}

static const char *column_text(struct item_reader *r, sqlite3_stmt *st, int at, bool *ok)
{
    const char *s = (const char *)sqlite3_column_text(st, at);
    if (!s)
        return NULL;
    s = arena_str(&r->arena, s, (size_t)sqlite3_column_bytes(st, at), NULL);
    *ok &= s != NULL;
    return s;
}

/* Calls take() for each row of a children statement, with room for it in *array. */
static bool read_children(struct item_reader *r, enum statement id, int64_t item, size_t size, void *array, int *n,
                          bool (*take)(struct item_reader *, sqlite3_stmt *, void *), struct error *err)
{
    sqlite3_stmt *st = store_statement(r->s, id, err);
    if (!st)
        return false;
    char *rows = NULL;
    size_t cap = 0;
    int rc;
    bool ok = true;
    sqlite3_bind_int64(st, 1, item);
    for (*n = 0; ok && (rc = sqlite3_step(st)) != SQLITE_DONE; ++*n)
        ok = (rc == SQLITE_ROW || db_fail(r->s, "reading an item", err)) &&
             mem_grow(&rows, &cap, (size_t)*n + 1, size, err) &&
             (take(r, st, rows + (size_t)*n * size) || fail(err, STATUS_MEMORY, "out of memory"));
    sqlite3_reset(st);
    void *kept = ok ? arena_new(&r->arena, ((size_t)*n + 1) * size, err) : NULL;
    if (kept && *n)
        memcpy(kept, rows, (size_t)*n * size);
    memcpy(array, &kept, sizeof kept);
    free(rows);
    return kept != NULL;
}

static bool take_choice(struct item_reader *r, sqlite3_stmt *st, void *out)
{
    (void)r;
    *(struct item_choice *)out = (struct item_choice){ sqlite3_column_double(st, 0), sqlite3_column_int(st, 1),
                                                       sqlite3_column_int(st, 2), sqlite3_column_int(st, 3) };
    return true;
}

static bool take_extraction(struct item_reader *r, sqlite3_stmt *st, void *out)
{
    bool ok = true;
    struct item_extraction *e = out;
    e->rule = column_text(r, st, 0, &ok);
    e->value = column_text(r, st, 1, &ok);
    return ok;
}

static bool take_score(struct item_reader *r, sqlite3_stmt *st, void *out)
{
    bool ok = true;
    struct item_score *e = out;
    e->metric = column_text(r, st, 0, &ok);
    e->value = sqlite3_column_double(st, 1);
    return ok;
}

static bool read_item(struct item_reader *r, struct error *err)
{
    sqlite3_stmt *st = r->items;
    bool ok = true;
    int64_t item = sqlite3_column_int64(st, 0);
    struct item_row row = {
        .id = column_text(r, st, 1, &ok),
        .group = column_text(r, st, 2, &ok),
        .prompt_tokens = sqlite3_column_int(st, 4),
        .gold = column_text(r, st, 5, &ok),
        .answer = column_text(r, st, 6, &ok),
        .output = column_text(r, st, 7, &ok),
        .finish = column_text(r, st, 8, &ok),
        .output_tokens = sqlite3_column_int(st, 9),
        .margin = sqlite3_column_type(st, 10) == SQLITE_NULL ? NAN : sqlite3_column_double(st, 10),
        .elapsed_ns = sqlite3_column_int64(st, 11),
    };
    const char *hash = (const char *)sqlite3_column_text(st, 3);
    snprintf(row.prompt_hash, sizeof row.prompt_hash, "%s", hash ? hash : "");
    r->row = row;
    return (ok || fail(err, STATUS_MEMORY, "out of memory")) &&
           read_children(r, ST_GET_CHOICES, item, sizeof *row.choices, &r->row.choices, &r->row.n_choices, take_choice, err) &&
           read_children(r, ST_GET_EXTRACTIONS, item, sizeof *row.extractions, &r->row.extractions,
                         &r->row.n_extractions, take_extraction, err) &&
           read_children(r, ST_GET_SCORES, item, sizeof *row.scores, &r->row.scores, &r->row.n_scores, take_score, err);
}

bool items_next(struct item_reader *r, bool *more, struct error *err)
{
    arena_free(&r->arena);
    r->arena = (struct arena){ 0 };
    int rc = sqlite3_step(r->items);
    *more = rc == SQLITE_ROW;
    if (rc == SQLITE_DONE)
        return true;
    return rc == SQLITE_ROW ? read_item(r, err) : db_fail(r->s, "reading items", err);
}

void items_close(struct item_reader *r)
{
    sqlite3_finalize(r->items);
    arena_free(&r->arena);
    *r = (struct item_reader){ 0 };
}

/* ---- measures ---- */

bool store_put_measure(struct store *s, const char *model_sha256, const char *base_sha256, const char *text_sha256,
                       const char *act, const char *name, double value, struct error *err)
{
    if (!isfinite(value))
        return fail(err, STATUS_INPUT, "measure %s is %g, expected a finite number", name, value);
    sqlite3_stmt *st;
    if (!db_prepare(s, "INSERT INTO measures (model_sha256, base_sha256, text_sha256, act, name, value) "
                       "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", &st, err))
        return false;
    db_bind(st, "sssssd", model_sha256, base_sha256, text_sha256, act, name, value);
    bool ok = db_done(s, st, "adding a measure", err);
    sqlite3_finalize(st);
    return ok;
}
