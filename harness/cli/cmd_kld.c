/* kld: two models in lock-step on one text; the results are printed and kept as measures. */
#include "cli/cli.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is stored of a result, one row a figure; those with a head are printed too. */
#define AT(field) offsetof(struct kld_result, field)
#define PERCENTILE(i) (AT(kld_percentiles) + (i) * sizeof(double))
static const struct figure {
    const char *name, *head;
    size_t field;
    double factor;
} figures[] = {
    { "ppl", "ppl", AT(ppl), 1 },
    { "ppl_base", "ppl base", AT(ppl_base), 1 },
    { "kld_mean", "KLD mean", AT(kld_mean), 1 },
    { "kld_se", "+- se", AT(kld_se), 1 },
    { "kld_min", NULL, PERCENTILE(0), 1 },
    { "kld_p1", NULL, PERCENTILE(1), 1 },
    { "kld_p10", NULL, PERCENTILE(2), 1 },
    { "kld_p50", "median", PERCENTILE(3), 1 },
    { "kld_p90", NULL, PERCENTILE(4), 1 },
    { "kld_p99", "99 %", PERCENTILE(5), 1 },
    { "kld_max", "max", PERCENTILE(6), 1 },
    { "same_top", "same top %", AT(same_top), 100 },
    { "delta_p_mean", "mean dp %", AT(delta_p_mean), 100 },
    { "delta_p_rms", "rms dp %", AT(delta_p_rms), 100 },
    { "log_ppl_ratio", NULL, AT(log_ratio_mean), 1 },
    { "log_ppl_ratio_se", NULL, AT(log_ratio_se), 1 },
};

static double value_of(const struct kld_result *r, const struct figure *f)
{
    double v;
    memcpy(&v, (const char *)r + f->field, sizeof v);
    return v;
}

struct side {
    struct model model;
    struct engine *engine;
};

static bool side_start(struct side *x, const struct settings *s, struct error *err)
{
    struct engine_options eo;
    return engine_options_of(s, &eo, err) && engine_open(&x->engine, &x->model, &eo, err);
}

static void side_close(struct side *x)
{
    engine_close(x->engine);
    model_close(&x->model);
}

/* What a result belongs to: both models' weights, the windows of ids, the activations. */
struct subject {
    char model[65], base[65], ids[65];
    const char *act;
};

static bool subject_of(const struct settings *s, const struct side *base, const struct side *other, const struct ids *ids,
                       struct subject *x, struct error *err)
{
    struct sha256 sha;
    uint8_t digest[32];
    x->act = s->act;
    if (!model_sha256(&other->model, x->model, err) || !model_sha256(&base->model, x->base, err) || !sha256_init(&sha, err))
        return false;
    sha256_add(&sha, &s->ctx, sizeof s->ctx);
    sha256_add(&sha, ids->data, ids->n * sizeof *ids->data);
    sha256_end(&sha, digest);
    hex_of(digest, 32, x->ids);
    return true;
}

static bool store_figures(struct store *store, const struct subject *x, const struct kld_result *r, struct error *err)
{
    for (size_t i = 0; i < ARRAY_LEN(figures); i++)
        if (!store_put_measure(store, x->model, x->base, x->ids, x->act, figures[i].name, value_of(r, &figures[i]), err))
            return false;
    return store_put_measure(store, x->model, x->base, x->ids, x->act, "tokens", (double)r->tokens, err);
}

/* True when every figure of this very measurement is stored already: then r holds them. */
static bool load_figures(struct store *store, const struct subject *x, struct kld_result *r)
{
    static const char sql[] = "SELECT name, value FROM measures WHERE model_sha256 = ? AND base_sha256 = ? AND text_sha256 = ? AND act = ?";
    const char *const keys[] = { x->model, x->base, x->ids, x->act };
    sqlite3_stmt *q = NULL;
    size_t found = 0;
    if (sqlite3_prepare_v2(store_db(store), sql, -1, &q, NULL) != SQLITE_OK)
        return false;
    for (int i = 0; i < (int)ARRAY_LEN(keys); i++)
        sqlite3_bind_text(q, i + 1, keys[i], -1, SQLITE_STATIC);
    while (sqlite3_step(q) == SQLITE_ROW) {
        const char *name = (const char *)sqlite3_column_text(q, 0);
        double v = sqlite3_column_double(q, 1);
        if (strcmp(name, "tokens") == 0)
            r->tokens = (int64_t)v;
        for (size_t i = 0; i < ARRAY_LEN(figures); i++)
            if (strcmp(name, figures[i].name) == 0) {
                memcpy((char *)r + figures[i].field, &v, sizeof v);
                found++;
            }
    }
    sqlite3_finalize(q);
    return found == ARRAY_LEN(figures) && r->tokens > 0;
}

static void add_row(struct table *t, cJSON *array, const char *label, const struct kld_result *r)
{
    cJSON *o = array ? cJSON_CreateObject() : NULL;
    if (o) {
        cJSON_AddStringToObject(o, "model", label);
        cJSON_AddNumberToObject(o, "tokens", (double)r->tokens);
        cJSON_AddItemToArray(array, o);
    } else {
        table_cell(t, "%s", label);
        table_cell(t, "%lld", (long long)r->tokens);
    }
    for (size_t i = 0; i < ARRAY_LEN(figures); i++) {
        double v = value_of(r, &figures[i]);
        if (o)
            cJSON_AddNumberToObject(o, figures[i].name, v);
        else if (figures[i].head)
            table_cell(t, "%.5g", v * figures[i].factor);
    }
}

static bool same_vocabulary(const struct side *a, const struct side *b, struct error *err)
{
    char x[65], y[65];
    if (!model_tokenizer_hash(&a->model, x, err) || !model_tokenizer_hash(&b->model, y, err))
        return false;
    return strcmp(x, y) == 0 || fail(err, STATUS_INPUT, "%s and %s have different tokenizers (%.12s, %.12s); a divergence needs one vocabulary",
                                     a->model.path, b->model.path, x, y);
}

static bool encode_text(const struct settings *s, const struct side *base, struct ids *ids, struct error *err)
{
    struct text text = { 0 };
    bool ok = base->model.tokenizer || fail(err, STATUS_INPUT, "%s: no tokenizer: %s", base->model.path,
                                            base->model.tokenizer_error ? base->model.tokenizer_error : "none found");
    ok = ok && file_read(s->text, 0, &text, err) &&
         tokenizer_encode(base->model.tokenizer, text_str(&text), text.len, false, false, ids, err);
    if (ok && s->limit && ids->n > (size_t)(s->limit * s->ctx))
        ids->n = (size_t)(s->limit * s->ctx);
    text_free(&text);
    return ok;
}

static bool measure_all(const struct settings *s, struct side *base, struct table *t, cJSON *array, struct store *store,
                        struct error *err)
{
    struct ids ids = { 0 };
    bool ok = encode_text(s, base, &ids, err);
    for (size_t i = 0; ok && i < s->rest.n; i++) {
        struct side other = { 0 };
        struct subject x;
        struct kld_result r = { 0 };
        ok = model_open(&other.model, s->rest.words[i], true, err) && same_vocabulary(base, &other, err) &&
             subject_of(s, base, &other, &ids, &x, err);
        bool known = ok && load_figures(store, &x, &r);
        if (ok && !known)
            ok = (base->engine || side_start(base, s, err)) && side_start(&other, s, err) &&
                 eval_kld(base->engine, other.engine, &base->model, ids.data, ids.n, (int)s->ctx, &r, err) &&
                 store_figures(store, &x, &r, err);
        if (ok) {
            add_row(t, array, other.model.label, &r);
            note(s, "%s: %s", other.model.label, known ? "measured before" : "done");
        }
        free(r.kld_per_token);
        side_close(&other);
    }
    ids_free(&ids);
    return ok;
}

int cmd_kld(const struct settings *s, struct error *err)
{
    const char *heads[2 + ARRAY_LEN(figures)] = { "model", "tokens" };
    int columns = 2;
    for (size_t i = 0; i < ARRAY_LEN(figures); i++)
        if (figures[i].head)
            heads[columns++] = figures[i].head;
    if (!s->rest.n)
        return fail(err, STATUS_USAGE, "kld: no model to compare; usage: qdelta kld --base MODEL MODEL.. --text FILE"), EXIT_USAGE;
    struct side base = { 0 };
    struct store *store = NULL;
    cJSON *array = s->json ? cJSON_CreateArray() : NULL;
    struct table *t = table_new(columns, heads, "lrrrrrrrrrrrrrrrrr", err);
    bool ok = t && store_open(&store, s->db, STORE_WRITE, err) && model_open(&base.model, s->base, true, err) &&
              measure_all(s, &base, t, array, store, err);
    if (ok && array) {
        ok = json_print(array, err);
        array = NULL;
    }
    if (ok && !s->json)
        ok = table_print(t, stdout, err);
    else
        table_free(t);
    cJSON_Delete(array);
    side_close(&base);
    store_close(store);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
