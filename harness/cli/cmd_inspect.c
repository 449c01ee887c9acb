/* inspect: what is in a model file, and what it needs. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Tensor classes, by the part of the name that tells them: a row a class. */
static const struct class_row {
    const char *name, *part;
} classes[] = {
    { "per-layer embedding", "per_layer_token_embd" }, { "embedding", "token_embd." }, { "output head", "output.weight" },
    { "attention q", "attn_q." }, { "attention k", "attn_k." }, { "attention v", "attn_v." }, { "attention out", "attn_output." },
    { "experts", "_exps." }, { "router", "ffn_gate_inp" }, { "ffn gate", "ffn_gate." }, { "ffn up", "ffn_up." }, { "ffn down", "ffn_down." },
    { "per-layer projections", "per_layer_model_proj" }, { "per-layer projections", "inp_gate." }, { "per-layer projections", ".proj." },
    { "norms, scales", "" },
};

struct class_sum {
    const char *name;
    int tensors;
    double weights, bytes;
    int by_format[FORMAT_COUNT];
};

static int class_of(const char *tensor)
{
    size_t i = 0;
    /* "output.weight" is a whole name: every layer has an attn_output.weight besides. */
    while ((str_ends(classes[i].part, ".weight") ? strcmp(tensor, classes[i].part) != 0 : !strstr(tensor, classes[i].part)) || (strstr(tensor, "norm") && classes[i].part[0]))
        i++;
    return (int)i;
}

/* Sums by class name; several rows may share one name. Returns how many. */
static int sum_classes(const struct model *m, struct class_sum *sums)
{
    int n = 0;
    for (size_t c = 0; c < ARRAY_LEN(classes); c++) {
        bool known = false;
        for (int i = 0; i < n; i++)
            known |= strcmp(sums[i].name, classes[c].name) == 0;
        if (!known)
            sums[n++] = (struct class_sum){ .name = classes[c].name };
    }
    for (int t = 0; t < m->n_tensors; t++) {
        const char *name = classes[class_of(m->tensors[t].name)].name;
        struct class_sum *s = sums;
        while (strcmp(s->name, name) != 0)
            s++;
        const struct tensor *x = &m->tensors[t];
        s->tensors++;
        s->weights += (double)x->cols * (double)x->rows * (double)x->mats;
        s->bytes += (double)x->bytes;
        s->by_format[x->format]++;
    }
    return n;
}

static void format_words(const struct class_sum *s, struct text *out)
{
    for (int f = 0; f < FORMAT_COUNT; f++)
        if (s->by_format[f])
            text_printf(out, "%s%d %s", out->len ? ", " : "", s->by_format[f], formats[f].name);
}

static void print_config(const struct model *m)
{
    const struct model_config *c = &m->config;
    int sliding = 0, own = 0;
    for (int i = 0; i < c->n_layers; i++) {
        sliding += c->layers[i].sliding;
        own += c->layers[i].kv_source == i;
    }
    printf("%s: %s, %s\n", m->label, c->arch, m->recipe ? m->recipe : "no weights");
    printf("layers %d (%d sliding, %d full; %d with own K/V), hidden %d, heads %d, vocabulary %d, context %d\n", c->n_layers, sliding,
           c->n_layers - sliding, own, c->hidden, c->n_heads, c->vocab, c->context);
    if (m->tokenizer)
        printf("tokenizer %s, %d tokens, BOS %d\n", tokenizer_kind(m->tokenizer), tokenizer_size(m->tokenizer), tokenizer_bos(m->tokenizer));
    else if (m->source == MODEL_HF || m->path)
        printf("tokenizer: none (%s)\n", m->tokenizer_error ? m->tokenizer_error : "not needed here");
    const char *published = model_published_recipe(m);
    printf("tensor types: %s%s\n", published ? "as " : "of no published recipe known here", published ? published : "");
    printf("file %.3f GB, %.3f bits per weight\n\n", (double)m->file_bytes / 1e9, m->bits_per_weight);
}

static bool print_classes(const struct class_sum *sums, int n, struct error *err)
{
    static const char *const heads[] = { "tensors", "count", "weights", "MiB", "bits per weight", "types" };
    struct table *t = table_new(6, heads, "lrrrrl", err);
    if (!t)
        return false;
    for (int i = 0; i < n; i++) {
        struct text words = { 0 };
        if (!sums[i].tensors)
            continue;
        format_words(&sums[i], &words);
        table_cell(t, "%s", sums[i].name);
        table_cell(t, "%d", sums[i].tensors);
        table_cell(t, "%.0f", sums[i].weights);
        table_cell(t, "%.2f", sums[i].bytes / 1048576);
        table_cell(t, "%.4f", sums[i].weights > 0 ? 8 * sums[i].bytes / sums[i].weights : 0);
        table_cell(t, "%s", text_str(&words));
        text_free(&words);
    }
    return table_print(t, stdout, err);
}

static const int contexts[] = { 8192, 32768, 131072 };
static const int cards_gb[] = { 8, 12, 16, 24 };

static bool print_memory(const struct model *m, struct error *err)
{
    static const char *const heads[] = { "context", "KV GiB (f16)", "need GiB", "8 GB", "12 GB", "16 GB", "24 GB" };
    struct table *t = table_new(7, heads, "rrrllll", err);
    if (!t)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(contexts); i++) {
        struct memory_need need = model_memory(m, contexts[i]);
        table_cell(t, "%d", contexts[i]);
        table_cell(t, "%.2f", (double)need.kv_bytes / 1073741824);
        table_cell(t, "%.2f", (double)need.total_bytes / 1073741824);
        for (size_t c = 0; c < ARRAY_LEN(cards_gb); c++)
            table_cell(t, "%s", (double)need.total_bytes <= (cards_gb[c] - 1) * 1073741824.0 ? "fits" : "no");
    }
    printf("\n");
    if (!table_print(t, stdout, err))
        return false;
    const struct tensor *ple = model_find(m, "per_layer_token_embd.weight");
    if (ple)
        printf("per-layer embeddings left on disk (one row a token is read): %.2f GiB less\n", (double)ple->bytes / 1073741824);
    return true;
}

static bool print_json(const struct model *m, const struct class_sum *sums, int n, struct error *err)
{
    cJSON *o = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(o, "classes"), *memory = cJSON_AddArrayToObject(o, "memory");
    cJSON_AddStringToObject(o, "label", m->label);
    cJSON_AddStringToObject(o, "architecture", m->config.arch);
    cJSON_AddStringToObject(o, "recipe", m->recipe ? m->recipe : "");
    if (model_published_recipe(m))
        cJSON_AddStringToObject(o, "published_recipe", model_published_recipe(m));
    else
        cJSON_AddNullToObject(o, "published_recipe");
    cJSON_AddNumberToObject(o, "layers", m->config.n_layers);
    cJSON_AddNumberToObject(o, "hidden", m->config.hidden);
    cJSON_AddNumberToObject(o, "vocabulary", m->config.vocab);
    cJSON_AddNumberToObject(o, "file_bytes", (double)m->file_bytes);
    cJSON_AddNumberToObject(o, "bits_per_weight", m->bits_per_weight);
    for (int i = 0; i < n; i++) {
        cJSON *c = cJSON_CreateObject(), *types = cJSON_CreateObject();
        if (!sums[i].tensors) {
            cJSON_Delete(c);
            cJSON_Delete(types);
            continue;
        }
        cJSON_AddStringToObject(c, "name", sums[i].name);
        cJSON_AddNumberToObject(c, "tensors", sums[i].tensors);
        cJSON_AddNumberToObject(c, "weights", sums[i].weights);
        cJSON_AddNumberToObject(c, "bytes", sums[i].bytes);
        for (int f = 0; f < FORMAT_COUNT; f++)
            if (sums[i].by_format[f])
                cJSON_AddNumberToObject(types, formats[f].name, sums[i].by_format[f]);
        cJSON_AddItemToObject(c, "types", types);
        cJSON_AddItemToArray(list, c);
    }
    for (size_t i = 0; i < ARRAY_LEN(contexts); i++) {
        struct memory_need need = model_memory(m, contexts[i]);
        cJSON *row = cJSON_CreateObject();
        cJSON_AddNumberToObject(row, "context", contexts[i]);
        cJSON_AddNumberToObject(row, "kv_bytes", (double)need.kv_bytes);
        cJSON_AddNumberToObject(row, "total_bytes", (double)need.total_bytes);
        cJSON_AddItemToArray(memory, row);
    }
    return json_print(o, err);
}

static bool print_tensors(const struct model *m, struct error *err)
{
    static const char *const heads[] = { "tensor", "type", "cols", "rows", "matrices" };
    struct table *t = table_new(5, heads, "llrrr", err);
    if (!t)
        return false;
    for (int i = 0; i < m->n_tensors; i++) {
        const struct tensor *x = &m->tensors[i];
        table_cell(t, "%s", x->name);
        table_cell(t, "%s", formats[x->format].name);
        table_cell(t, "%lld", (long long)x->cols);
        table_cell(t, "%lld", (long long)x->rows);
        table_cell(t, "%lld", (long long)x->mats);
    }
    printf("\n");
    return table_print(t, stdout, err);
}

static bool open_subject(struct model *m, const struct settings *s, struct error *err)
{
    if (!s->shape == !s->rest.n)
        return fail(err, STATUS_USAGE, "inspect: give a MODEL or --shape NAME, one of the two");
    if (!s->shape)
        return model_open(m, s->rest.words[0], true, err);
    char *name = str_dup(s->shape, err), *colon = name ? strchr(name, ':') : NULL;
    if (colon)
        *colon = '\0';
    bool ok = name && model_shape(m, name, colon ? colon + 1 : "google-q4_0", err);
    free(name);
    return ok;
}

int cmd_inspect(const struct settings *s, struct error *err)
{
    struct model m = { 0 };
    struct class_sum sums[ARRAY_LEN(classes)];
    if (!open_subject(&m, s, err))
        return err->status == STATUS_USAGE ? EXIT_USAGE : EXIT_FAILED;
    int n = sum_classes(&m, sums);
    bool ok;
    if (s->json) {
        ok = print_json(&m, sums, n, err);
    } else {
        print_config(&m);
        ok = print_classes(sums, n, err) && print_memory(&m, err) && (!s->verbose || print_tensors(&m, err));
    }
    model_close(&m);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
