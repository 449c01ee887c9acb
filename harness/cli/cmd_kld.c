/* kld: two models in lock-step on one text; the results are printed and kept as measures. */
#include "cli/cli.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is printed and stored of a result, one row a figure. */
static const struct figure {
    const char *name, *head;
    size_t field;
    double factor;
} figures[] = {
    { "ppl", "ppl", offsetof(struct kld_result, ppl), 1 },
    { "ppl_base", "ppl base", offsetof(struct kld_result, ppl_base), 1 },
    { "kld_mean", "KLD mean", offsetof(struct kld_result, kld_mean), 1 },
    { "kld_se", "+- se", offsetof(struct kld_result, kld_se), 1 },
    { "kld_median", "median", offsetof(struct kld_result, kld_percentiles) + 3 * sizeof(double), 1 },
    { "kld_99", "99 %", offsetof(struct kld_result, kld_percentiles) + 5 * sizeof(double), 1 },
    { "kld_max", "max", offsetof(struct kld_result, kld_percentiles) + 6 * sizeof(double), 1 },
    { "same_top", "same top %", offsetof(struct kld_result, same_top), 100 },
    { "delta_p_mean", "mean dp %", offsetof(struct kld_result, delta_p_mean), 100 },
    { "delta_p_rms", "rms dp %", offsetof(struct kld_result, delta_p_rms), 100 },
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

static bool side_open(struct side *x, const char *spec, const struct settings *s, struct error *err)
{
    struct engine_options eo;
    *x = (struct side){ 0 };
    return engine_options_of(s, &eo, err) && model_open(&x->model, spec, true, err) && engine_open(&x->engine, &x->model, &eo, err);
}

static void side_close(struct side *x)
{
    engine_close(x->engine);
    model_close(&x->model);
}

static bool store_figures(struct store *store, const struct settings *s, const struct side *base, const struct side *other,
                          const char *text_sha, const struct kld_result *r, struct error *err)
{
    char a[65], b[65];
    if (!model_sha256(&other->model, a, err) || !model_sha256(&base->model, b, err))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(figures); i++)
        if (!store_put_measure(store, a, b, text_sha, s->act, figures[i].name, value_of(r, &figures[i]), err))
            return false;
    return true;
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
        else
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

static bool encode_text(const struct settings *s, const struct side *base, struct ids *ids, char sha[65], struct error *err)
{
    struct text text = { 0 };
    uint8_t digest[32];
    bool ok = base->model.tokenizer || fail(err, STATUS_INPUT, "%s: no tokenizer: %s", base->model.path,
                                            base->model.tokenizer_error ? base->model.tokenizer_error : "none found");
    ok = ok && file_read(s->text, 0, &text, err) && sha256_bytes(text_str(&text), text.len, digest, err) &&
         tokenizer_encode(base->model.tokenizer, text_str(&text), text.len, false, false, ids, err);
    if (ok)
        hex_of(digest, 32, sha);
    if (ok && s->limit && ids->n > (size_t)(s->limit * s->ctx))
        ids->n = (size_t)(s->limit * s->ctx);
    text_free(&text);
    return ok;
}

static bool measure_all(const struct settings *s, struct side *base, struct table *t, cJSON *array, struct store *store,
                        struct error *err)
{
    struct ids ids = { 0 };
    char sha[65];
    bool ok = encode_text(s, base, &ids, sha, err);
    for (size_t i = 0; ok && i < s->rest.n; i++) {
        struct side other;
        struct kld_result r = { 0 };
        ok = side_open(&other, s->rest.words[i], s, err) && same_vocabulary(base, &other, err) &&
             eval_kld(base->engine, other.engine, &base->model, ids.data, ids.n, (int)s->ctx, &r, err) &&
             store_figures(store, s, base, &other, sha, &r, err);
        if (ok)
            add_row(t, array, other.model.label, &r);
        if (ok)
            note(s, "%s: done", other.model.label);
        free(r.kld_per_token);
        side_close(&other);
    }
    ids_free(&ids);
    return ok;
}

int cmd_kld(const struct settings *s, struct error *err)
{
    const char *heads[2 + ARRAY_LEN(figures)] = { "model", "tokens" };
    for (size_t i = 0; i < ARRAY_LEN(figures); i++)
        heads[2 + i] = figures[i].head;
    if (!s->rest.n)
        return fail(err, STATUS_USAGE, "kld: no model to compare; usage: qdelta kld --base MODEL MODEL.. --text FILE"), EXIT_USAGE;
    struct side base = { 0 };
    struct store *store = NULL;
    cJSON *array = s->json ? cJSON_CreateArray() : NULL;
    struct table *t = table_new((int)ARRAY_LEN(heads), heads, "lrrrrrrrrrrr", err);
    bool ok = t && store_open(&store, s->db, STORE_WRITE, err) && side_open(&base, s->base, s, err) &&
              measure_all(s, &base, t, array, store, err);
    if (ok && array) {
        char *text = cJSON_Print(array);
        printf("%s\n", text ? text : "[]");
        cJSON_free(text);
    }
    if (ok && !array)
        ok = table_print(t, stdout, err);
    else
        table_free(t);
    cJSON_Delete(array);
    side_close(&base);
    store_close(store);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
