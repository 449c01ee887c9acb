/* transfer.c - databases into one another, and to and from JSON Lines.
 *
 * A line is an object with a "type": "qdelta" (first line, with the schema version), "run", "item", "measure".
 * Runs come before their items, which name them by the number that the run line gives.  Texts that are not
 * valid UTF-8 (a model stopped inside a character) are written as {"hex": ".."}. */
#include "store/private.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { EXPORT_VERSION = 1 };

/* ---- writing JSON ---- */

static void put_text(struct text *t, const char *key, const char *s)
{
    text_printf(t, ",\"%s\":", key);
    if (!s) {
        text_puts(t, "null");
    } else if (utf8_check(s, strlen(s)) == strlen(s)) {
        json_quote(t, s, strlen(s));
    } else {
        text_puts(t, "{\"hex\":\"");
        for (; *s; s++)
            text_printf(t, "%02x", (unsigned char)*s);
        text_puts(t, "\"}");
    }
}

/* 17 digits bring a double back exactly; 1e999 is JSON's way to write an infinity that strtod() understands. */
static void put_number(struct text *t, const char *key, double x)
{
    text_printf(t, ",\"%s\":", key);
    if (isnan(x))
        text_puts(t, "null");
    else if (isinf(x))
        text_puts(t, x < 0 ? "-1e999" : "1e999");
    else
        text_printf(t, "%.17g", x);
}

static void put_int(struct text *t, const char *key, int64_t x)
{
    text_printf(t, ",\"%s\":%" PRId64, key, x);
}

static void put_run(struct text *t, const struct stored_run *r)
{
    text_puts(t, "{\"type\":\"run\"");
    put_int(t, "run", r->run);
    for (int i = 0; i < run_field_count; i++) {
        const struct field *f = &run_fields[i];
        const void *p = (const char *)r + f->offset;
        const char *s;
        switch (f->kind) {
        case FIELD_TEXT:
            memcpy(&s, p, sizeof s);
            put_text(t, f->name, s);
            break;
        case FIELD_SEED: text_printf(t, ",\"%s\":\"%" PRIu64 "\"", f->name, *(const uint64_t *)p); break;
        case FIELD_INT: put_int(t, f->name, *(const int *)p); break;
        case FIELD_I64:
        case FIELD_U64: put_int(t, f->name, *(const int64_t *)p); break;
        case FIELD_REAL: put_number(t, f->name, *(const double *)p); break;
        }
    }
    text_puts(t, "}\n");
}

static void put_item(struct text *t, int64_t run, const struct item_row *r)
{
    text_puts(t, "{\"type\":\"item\"");
    put_int(t, "run", run);
    put_text(t, "item", r->id);
    put_text(t, "group_name", r->group);
    put_text(t, "prompt_hash", r->prompt_hash);
    put_int(t, "prompt_tokens", r->prompt_tokens);
    put_text(t, "gold", r->gold);
    put_text(t, "answer", r->answer);
    put_text(t, "output", r->output);
    put_text(t, "finish", r->finish);
    put_int(t, "output_tokens", r->output_tokens);
    put_number(t, "margin", r->margin);
    put_int(t, "elapsed_ns", r->elapsed_ns);
    text_puts(t, ",\"choices\":[");
    for (int i = 0; i < r->n_choices; i++) {
        text_printf(t, "%s{\"position\":%d", i ? "," : "", i);
        put_number(t, "logprob", r->choices[i].logprob);
        put_int(t, "tokens", r->choices[i].tokens);
        put_int(t, "chars", r->choices[i].chars);
        put_int(t, "bytes", r->choices[i].bytes);
        text_putc(t, '}');
    }
    text_puts(t, "],\"extractions\":[");
    for (int i = 0; i < r->n_extractions; i++) {
        text_printf(t, "%s{\"position\":%d", i ? "," : "", i);
        put_text(t, "rule", r->extractions[i].rule);
        put_text(t, "value", r->extractions[i].value);
        text_putc(t, '}');
    }
    text_puts(t, "],\"scores\":[");
    for (int i = 0; i < r->n_scores; i++) {
        text_printf(t, "%s{\"position\":%d", i ? "," : "", i);
        put_text(t, "metric", r->scores[i].metric);
        put_number(t, "score", r->scores[i].value);
        text_putc(t, '}');
    }
    text_puts(t, "]}\n");
}

static bool flush(struct text *t, FILE *out, struct error *err)
{
    bool ok = text_ok(t, err) && (fwrite(text_str(t), 1, t->len, out) == t->len || fail_errno(err, "export", "cannot write"));
    text_clear(t);
    return ok;
}

static bool export_items(struct store *s, int64_t run, struct text *t, FILE *out, struct error *err)
{
    struct item_reader r;
    bool more = true, ok = items_open(&r, s, run, NULL, err);
    while (ok && (ok = items_next(&r, &more, err)) && more) {
        put_item(t, run, &r.row);
        ok = flush(t, out, err);
    }
    items_close(&r);
    return ok;
}

static const char measure_query[] = "SELECT model_sha256, base_sha256, text_sha256, act, name, value FROM measures "
                                    "ORDER BY 1, 2, 3, 4, 5";
static const char *const measure_keys[] = { "model_sha256", "base_sha256", "text_sha256", "act", "name" };

static bool export_measures(struct store *s, struct text *t, FILE *out, struct error *err)
{
    sqlite3_stmt *st;
    if (!db_prepare(s, measure_query, &st, err))
        return false;
    int rc;
    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        text_puts(t, "{\"type\":\"measure\"");
        for (int i = 0; i < (int)ARRAY_LEN(measure_keys); i++)
            put_text(t, measure_keys[i], (const char *)sqlite3_column_text(st, i));
        put_number(t, "value", sqlite3_column_double(st, (int)ARRAY_LEN(measure_keys)));
        text_puts(t, "}\n");
    }
    bool ok = rc == SQLITE_DONE || db_fail(s, "reading measures", err);
    sqlite3_finalize(st);
    return ok && flush(t, out, err);
}

bool store_export(struct store *s, FILE *out, int64_t run, struct error *err)
{
    struct arena a = { 0 };
    struct text t = { 0 };
    struct stored_run *runs;
    int n;
    bool ok = runs_read(s, run, &a, &runs, &n, err);
    if (ok && run && n == 0)
        ok = fail(err, STATUS_INPUT, "%s: there is no run %lld", s->path, (long long)run);
    text_printf(&t, "{\"type\":\"qdelta\",\"version\":%d}\n", EXPORT_VERSION);
    for (int i = 0; ok && i < n; i++) {
        put_run(&t, &runs[i]);
        ok = export_items(s, runs[i].run, &t, out, err);
    }
    ok = ok && flush(&t, out, err) && (run || export_measures(s, &t, out, err));
    ok = ok && (fflush(out) == 0 || fail_errno(err, "export", "cannot write"));
    text_free(&t);
    arena_free(&a);
    return ok;
}

/* ---- what merge and import share: a run that may be here already ---- */

static bool adopt_run(struct store *s, const struct stored_run *r, int64_t *run, struct error *err)
{
    bool found;
    if (!run_find_or_add(s, r, run, &found, err))
        return false;
    if (!found)
        return true;
    sqlite3_stmt *st;   /* the same run in two databases: what both did is the larger, not the sum */
    if (!db_prepare(s, "UPDATE runs SET finished = max(finished, ?), seconds = max(seconds, ?), prompt_tokens = "
                       "max(prompt_tokens, ?), new_tokens = max(new_tokens, ?), peak_bytes = max(peak_bytes, ?), "
                       "items_expected = max(items_expected, ?), started_at = min(started_at, ?) WHERE id = ?", &st, err))
        return false;
    db_bind(st, "idiiiiii", (int64_t)r->finished, r->seconds, r->prompt_tokens, r->new_tokens, r->peak_bytes,
            (int64_t)r->id.items_expected, r->started_at, *run);
    bool ok = db_done(s, st, "joining a run", err);
    sqlite3_finalize(st);
    return ok;
}

/* ---- merge ---- */

static bool merge_items(struct store *into, int64_t run, struct store *from, int64_t from_run, struct error *err)
{
    struct item_reader r;
    bool more = true, ok = items_open(&r, from, from_run, NULL, err);
    while (ok && (ok = items_next(&r, &more, err)) && more)
        ok = store_put_item(into, run, &r.row, err);
    items_close(&r);
    return ok;
}

static bool merge_measures(struct store *into, struct store *from, struct error *err)
{
    sqlite3_stmt *st;
    if (!db_prepare(from, measure_query, &st, err))
        return false;
    int rc;
    bool ok = true;
    while (ok && (rc = sqlite3_step(st)) != SQLITE_DONE) {
        const char *c[ARRAY_LEN(measure_keys)];
        for (int i = 0; i < (int)ARRAY_LEN(c); i++)
            c[i] = (const char *)sqlite3_column_text(st, i);
        ok = (rc == SQLITE_ROW || db_fail(from, "reading measures", err)) &&
             store_put_measure(into, c[0], c[1], c[2], c[3], c[4], sqlite3_column_double(st, 5), err);
    }
    sqlite3_finalize(st);
    return ok;
}

static bool merge_all(struct store *into, struct store *from, struct error *err)
{
    struct arena a = { 0 };
    struct stored_run *runs;
    int n;
    bool ok = runs_read(from, 0, &a, &runs, &n, err);
    for (int i = 0; ok && i < n; i++) {
        int64_t run;
        ok = adopt_run(into, &runs[i], &run, err) && merge_items(into, run, from, runs[i].run, err);
    }
    arena_free(&a);
    return ok && merge_measures(into, from, err);
}

bool store_merge(struct store *into, const char *from_path, struct error *err)
{
    struct store *from;
    if (!store_open(&from, from_path, STORE_READ, err))
        return false;
    /* One snapshot of the source, so that a run which is still being written is taken at one moment. */
    bool ok = db_exec(from, "BEGIN", err) && store_begin(into, err);
    if (ok && !merge_all(into, from, err)) {
        store_rollback(into);
        ok = fail_in(err, "merging %s", from_path);
    } else if (ok) {
        ok = store_commit(into, err);
    }
    store_close(from);
    return ok;
}

/* ---- import ---- */

struct importer {
    struct store *s;
    struct map runs;            /* their run number, as text -> ours */
    struct arena keys;          /* of that map */
    struct arena line;
    const char *where;          /* "FILE:LINE" */
};

static int hex_value(char c)
{
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

static const char *unhex(struct importer *im, const char *hex, const char *key, struct error *err)
{
    size_t n = strlen(hex) / 2;
    char *out = arena_new(&im->line, n + 1, err);
    for (size_t i = 0; out && i < n; i++) {
        int hi = hex_value(hex[2 * i]), lo = hex_value(hex[2 * i + 1]);
        if (hi < 0 || lo < 0 || (hi | lo) == 0) {
            fail(err, STATUS_FORMAT, "%s: %s: \"%s\" is not hexadecimal text", im->where, key, hex);
            return NULL;
        }
        out[i] = (char)(hi << 4 | lo);
    }
    return out;
}

/* A string, {"hex": ".."} or (where optional) null. */
static bool get_text(struct importer *im, const cJSON *o, const char *key, bool optional, const char **out, struct error *err)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    *out = NULL;
    if (optional && cJSON_IsNull(v))
        return true;
    if (cJSON_IsObject(v)) {
        const char *hex;
        return json_str(v, "hex", &hex, im->where, err) && (*out = unhex(im, hex, key, err)) != NULL;
    }
    return json_str(o, key, out, im->where, err);
}

static bool get_int(struct importer *im, const cJSON *o, const char *key, int *out, struct error *err)
{
    int64_t x;
    if (!json_int(o, key, &x, im->where, err))
        return false;
    *out = (int)x;
    return x >= INT32_MIN && x <= INT32_MAX ? true
               : fail(err, STATUS_FORMAT, "%s: %s: %lld is out of range", im->where, key, (long long)x);
}

static bool get_field(struct importer *im, const cJSON *o, const struct field *f, struct stored_run *r, struct error *err)
{
    void *p = (char *)r + f->offset;
    const char *s;
    switch (f->kind) {
    case FIELD_TEXT:
        if (!get_text(im, o, f->name, false, &s, err))
            return false;
        memcpy(p, &s, sizeof s);
        return true;
    case FIELD_SEED:
        if (!json_str(o, f->name, &s, im->where, err))
            return false;
        *(uint64_t *)p = strtoull(s, NULL, 10);
        return true;
    case FIELD_INT: return get_int(im, o, f->name, p, err);
    case FIELD_I64:
    case FIELD_U64: return json_int(o, f->name, p, im->where, err);
    case FIELD_REAL: return json_num(o, f->name, p, im->where, err);
    }
    return false;
}

static bool import_run(struct importer *im, const cJSON *o, struct error *err)
{
    struct stored_run r = { 0 };
    int64_t run;
    char key[24];
    bool ok = json_int(o, "run", &r.run, im->where, err);
    for (int i = 0; ok && i < run_field_count; i++)
        ok = get_field(im, o, &run_fields[i], &r, err);
    if (!ok || !adopt_run(im->s, &r, &run, err))
        return false;
    int len = snprintf(key, sizeof key, "%" PRId64, r.run);
    char *kept = arena_str(&im->keys, key, (size_t)len, err);
    return kept && map_put(&im->runs, kept, (size_t)len, run, err);
}

typedef bool (*take_child)(struct importer *, const cJSON *, void *, struct error *);

static bool import_children(struct importer *im, const cJSON *o, const char *key, size_t size, void *array, int *n,
                            take_child take, struct error *err)
{
    const cJSON *list, *e;
    if (!json_array(o, key, &list, im->where, err))
        return false;
    *n = 0;
    char *rows = arena_new(&im->line, ((size_t)cJSON_GetArraySize(list) + 1) * size, err);
    memcpy(array, &rows, sizeof rows);
    if (!rows)
        return false;
    cJSON_ArrayForEach(e, list)
        if (!take(im, e, rows + (size_t)(*n)++ * size, err))
            return fail_in(err, "%s", key);
    return true;
}

static bool import_choice(struct importer *im, const cJSON *o, void *out, struct error *err)
{
    struct item_choice *c = out;
    return json_num(o, "logprob", &c->logprob, im->where, err) && get_int(im, o, "tokens", &c->tokens, err) &&
           get_int(im, o, "chars", &c->chars, err) && get_int(im, o, "bytes", &c->bytes, err);
}

static bool import_extraction(struct importer *im, const cJSON *o, void *out, struct error *err)
{
    struct item_extraction *x = out;
    return get_text(im, o, "rule", false, &x->rule, err) && get_text(im, o, "value", true, &x->value, err);
}

static bool import_score(struct importer *im, const cJSON *o, void *out, struct error *err)
{
    struct item_score *x = out;
    return get_text(im, o, "metric", false, &x->metric, err) && json_num(o, "score", &x->value, im->where, err);
}

static bool import_item(struct importer *im, const cJSON *o, struct error *err)
{
    struct item_row r = { .margin = NAN };
    int64_t theirs, run;
    char key[24];
    const char *hash;
    if (!json_int(o, "run", &theirs, im->where, err))
        return false;
    int len = snprintf(key, sizeof key, "%" PRId64, theirs);
    if (!map_get(&im->runs, key, (size_t)len, &run))
        return fail(err, STATUS_FORMAT, "%s: an item of run %lld, but no line before describes that run", im->where,
                    (long long)theirs);
    bool ok = get_text(im, o, "item", false, &r.id, err) && get_text(im, o, "group_name", false, &r.group, err) &&
              get_text(im, o, "prompt_hash", false, &hash, err) && get_int(im, o, "prompt_tokens", &r.prompt_tokens, err) &&
              get_text(im, o, "gold", false, &r.gold, err) && get_text(im, o, "answer", true, &r.answer, err) &&
              get_text(im, o, "output", true, &r.output, err) && get_text(im, o, "finish", false, &r.finish, err) &&
              get_int(im, o, "output_tokens", &r.output_tokens, err) &&
              json_int(o, "elapsed_ns", &r.elapsed_ns, im->where, err) &&
              (!json_get(o, "margin") || json_num(o, "margin", &r.margin, im->where, err)) &&
              import_children(im, o, "choices", sizeof *r.choices, &r.choices, &r.n_choices, import_choice, err) &&
              import_children(im, o, "extractions", sizeof *r.extractions, &r.extractions, &r.n_extractions,
                              import_extraction, err) &&
              import_children(im, o, "scores", sizeof *r.scores, &r.scores, &r.n_scores, import_score, err);
    if (!ok)
        return false;
    if (strlen(hash) >= sizeof r.prompt_hash)
        return fail(err, STATUS_FORMAT, "%s: prompt_hash has %zu characters, expected 64", im->where, strlen(hash));
    memcpy(r.prompt_hash, hash, strlen(hash) + 1);
    return store_put_item(im->s, run, &r, err);
}

static bool import_measure(struct importer *im, const cJSON *o, struct error *err)
{
    const char *c[ARRAY_LEN(measure_keys)];
    double value;
    for (size_t i = 0; i < ARRAY_LEN(c); i++)
        if (!get_text(im, o, measure_keys[i], false, &c[i], err))
            return false;
    return json_num(o, "value", &value, im->where, err) &&
           store_put_measure(im->s, c[0], c[1], c[2], c[3], c[4], value, err);
}

static bool import_head(struct importer *im, const cJSON *o, struct error *err)
{
    int64_t version;
    return json_int(o, "version", &version, im->where, err) &&
           (version <= EXPORT_VERSION ||
            fail(err, STATUS_FORMAT, "%s: exported by a newer qdelta: version %lld, this program knows up to %d", im->where,
                 (long long)version, EXPORT_VERSION));
}

static const struct {
    const char *type;
    bool (*take)(struct importer *, const cJSON *, struct error *);
} line_kinds[] = {
    { "qdelta", import_head },
    { "run", import_run },
    { "item", import_item },
    { "measure", import_measure },
};

static bool import_line(struct importer *im, const char *text, size_t len, struct error *err)
{
    cJSON *o = json_parse(text, len, im->where, err);
    const char *type;
    bool ok = o && json_str(o, "type", &type, im->where, err);
    size_t k = 0;
    while (ok && k < ARRAY_LEN(line_kinds) && strcmp(line_kinds[k].type, type) != 0)
        k++;
    if (ok && k == ARRAY_LEN(line_kinds))
        ok = fail(err, STATUS_FORMAT, "%s: type is \"%s\", expected qdelta, run, item or measure", im->where, type);
    ok = ok && line_kinds[k].take(im, o, err);
    cJSON_Delete(o);
    return ok;
}

static bool import_lines(struct importer *im, FILE *in, const char *where, struct error *err)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    bool ok = true;
    struct text at = { 0 };
    for (int64_t number = 1; ok && (len = getline(&line, &cap, in)) >= 0; number++) {
        text_clear(&at);
        text_printf(&at, "%s:%" PRId64, where, number);
        im->where = text_str(&at);
        if (strspn(line, " \t\r\n") < (size_t)len)
            ok = import_line(im, line, (size_t)len, err);
        arena_free(&im->line);
        im->line = (struct arena){ 0 };
    }
    if (ok && ferror(in))
        ok = fail_errno(err, where, "cannot read");
    text_free(&at);
    free(line);
    return ok;
}

bool store_import(struct store *s, FILE *in, const char *where, struct error *err)
{
    struct importer im = { .s = s };
    if (!store_begin(s, err))
        return false;
    bool ok = import_lines(&im, in, where, err);
    map_free(&im.runs);
    arena_free(&im.keys);
    if (ok)
        return store_commit(s, err);
    store_rollback(s);
    return false;
}
