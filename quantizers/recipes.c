#include "recipes.h"

#include <stdlib.h>
#include <string.h>

#define AUTO FORMAT_COUNT       /* llama-quantize's rule */

static const struct recipe recipes[] = {
    { "f32", FORMAT_F32, 0, AUTO, AUTO, "float32 everywhere" },
    { "f16", FORMAT_F16, 1, AUTO, AUTO, "matrices float16" },
    { "bf16", FORMAT_BF16, 32, AUTO, AUTO, "matrices bfloat16" },
    { "q8_0", FORMAT_Q8_0, 7, AUTO, AUTO, "matrices Q8_0" },
    { "q6_k", FORMAT_Q6_K, 18, AUTO, AUTO, "matrices Q6_K" },
    { "q5_k_m", FORMAT_Q5_K, 17, AUTO, AUTO, "Q5_K, half of attn_v and ffn_down Q6_K" },
    { "q5_k_s", FORMAT_Q5_K, 16, AUTO, AUTO, "Q5_K" },
    { "q5_1", FORMAT_Q5_1, 9, AUTO, AUTO, "matrices Q5_1" },
    { "q5_0", FORMAT_Q5_0, 8, AUTO, AUTO, "matrices Q5_0" },
    { "q4_k_m", FORMAT_Q4_K, 15, AUTO, AUTO, "Q4_K, half of attn_v and ffn_down Q6_K" },
    { "q4_k_s", FORMAT_Q4_K, 14, AUTO, AUTO, "Q4_K, the first attn_v and ffn_down Q5_K" },
    { "q4_1", FORMAT_Q4_1, 3, AUTO, AUTO, "matrices Q4_1" },
    { "q4_0", FORMAT_Q4_0, 2, AUTO, AUTO, "matrices Q4_0, tied embeddings Q6_K: llama-quantize's layout" },
    { "q4_0-q8_0", FORMAT_Q4_0, 2, FORMAT_Q8_0, AUTO, "Q4_0 with embeddings and head Q8_0: llama.cpp's own QAT recipe" },
    { "google-q4_0", FORMAT_Q4_0, 2, FORMAT_Q6_K, FORMAT_F16, "the layout of Google's Gemma 4 QAT files" },
    { "iq4_nl", FORMAT_IQ4_NL, 25, AUTO, AUTO, "matrices IQ4_NL" },
    { "iq4_xs", FORMAT_IQ4_XS, 30, AUTO, AUTO, "matrices IQ4_XS" },
    { "q3_k_l", FORMAT_Q3_K, 13, AUTO, AUTO, "Q3_K, attn_v, attn_output and ffn_down Q5_K" },
    { "q3_k_m", FORMAT_Q3_K, 12, AUTO, AUTO, "Q3_K, attn_v, attn_output and ffn_down Q4_K or Q5_K" },
    { "q3_k_s", FORMAT_Q3_K, 11, AUTO, AUTO, "Q3_K" },
    { "q2_k", FORMAT_Q2_K, 10, AUTO, AUTO, "Q2_K with Q3_K and Q4_K parts" },
};
static const char *const aliases[][2] = { { "q5_k", "q5_k_m" }, { "q4_k", "q4_k_m" }, { "q3_k", "q3_k_m" } };

const struct recipe *recipe_list(int *n)
{
    *n = (int)ARRAY_LEN(recipes);
    return recipes;
}

const struct recipe *recipe_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(aliases); i++)
        if (strcmp(name, aliases[i][0]) == 0)
            name = aliases[i][1];
    for (size_t i = 0; i < ARRAY_LEN(recipes); i++)
        if (strcmp(name, recipes[i].name) == 0)
            return &recipes[i];
    return NULL;
}

int tensor_layer(const char *name)
{
    return str_starts(name, "blk.") ? (int)strtol(name + 4, NULL, 10) : -1;
}

/* ---- which tensors are quantized at all ---- */

static const char *const never[] = {    /* parts of names; what stays is small, or sensitive, or both */
    "_norm.weight", "ffn_gate_inp.weight", "altup", "laurel", "per_layer_model_proj", "rope_freqs",
};

static bool is_matrix(const struct tensor *t)
{
    if ((t->rows == 1 && t->mats == 1) || !str_ends(t->name, "weight"))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(never); i++)
        if (strstr(t->name, never[i]))
            return false;
    return true;
}

/* 1-D tensors and routers are f32 in every GGUF; anything else that is not quantized stays as it is. */
static enum format_id kept_format(const struct recipe *r, const struct tensor *t)
{
    if ((t->rows == 1 && t->mats == 1) || strstr(t->name, "ffn_gate_inp"))
        return FORMAT_F32;
    if (strstr(t->name, "per_layer_model_proj") && r->ple_proj != AUTO)
        return r->ple_proj;
    return t->format;
}

/* ---- exceptions of the mixed recipes ---- */

enum when {
    ALWAYS, MORE_BITS /* first and last eighth, every third between */, FIRST_2, FIRST_4, FIRST_16TH, FIRST_8TH,
    GQA_4 /* at least four query heads a KV head */, WITH_IMPORTANCE_8TH, WITHOUT_IMPORTANCE_8TH, EXPERTS_8,
};
struct exception {
    const char *recipe;         /* NULL: every quantized one */
    const char *tensor;         /* part of the name */
    enum when when;
    enum format_id to;
};
static const struct exception exceptions[] = {      /* the first that applies */
    { NULL, "attn_v.weight", EXPERTS_8, FORMAT_Q8_0 },
    { NULL, "attn_k.weight", EXPERTS_8, FORMAT_Q8_0 },
    { "q2_k", "attn_output.weight", EXPERTS_8, FORMAT_Q5_K },
    { "q3_k_s", "attn_output.weight", EXPERTS_8, FORMAT_Q5_K },
    { "q3_k_m", "attn_output.weight", EXPERTS_8, FORMAT_Q5_K },
    { "q4_k_s", "attn_output.weight", EXPERTS_8, FORMAT_Q5_K },
    { "q4_k_m", "attn_output.weight", EXPERTS_8, FORMAT_Q5_K },
    { "iq4_nl", "attn_output.weight", EXPERTS_8, FORMAT_Q5_K },
    { "iq4_xs", "attn_output.weight", EXPERTS_8, FORMAT_Q5_K },
    { "q5_k_m", "attn_v.weight", MORE_BITS, FORMAT_Q6_K },
    { "q5_k_m", "ffn_down", MORE_BITS, FORMAT_Q6_K },
    { "q4_k_m", "attn_v.weight", MORE_BITS, FORMAT_Q6_K },
    { "q4_k_m", "ffn_down", MORE_BITS, FORMAT_Q6_K },
    { "q4_k_s", "attn_v.weight", FIRST_4, FORMAT_Q5_K },
    { "q4_k_s", "ffn_down", FIRST_8TH, FORMAT_Q5_K },
    { "q4_0", "ffn_down", WITH_IMPORTANCE_8TH, FORMAT_Q4_1 },
    { "q5_0", "ffn_down", WITH_IMPORTANCE_8TH, FORMAT_Q5_1 },
    { "iq4_nl", "attn_v.weight", GQA_4, FORMAT_Q5_K },
    { "iq4_nl", "ffn_down", WITHOUT_IMPORTANCE_8TH, FORMAT_Q5_K },
    { "iq4_xs", "attn_v.weight", GQA_4, FORMAT_Q5_K },
    { "iq4_xs", "ffn_down", WITHOUT_IMPORTANCE_8TH, FORMAT_Q5_K },
    { "q3_k_l", "attn_v.weight", ALWAYS, FORMAT_Q5_K },
    { "q3_k_l", "attn_output.weight", ALWAYS, FORMAT_Q5_K },
    { "q3_k_l", "ffn_down", ALWAYS, FORMAT_Q5_K },
    { "q3_k_m", "attn_v.weight", FIRST_2, FORMAT_Q5_K },
    { "q3_k_m", "attn_v.weight", ALWAYS, FORMAT_Q4_K },
    { "q3_k_m", "attn_output.weight", ALWAYS, FORMAT_Q4_K },
    { "q3_k_m", "ffn_down", FIRST_16TH, FORMAT_Q5_K },
    { "q3_k_m", "ffn_down", ALWAYS, FORMAT_Q4_K },
    { "q2_k", "attn_v.weight", GQA_4, FORMAT_Q4_K },
    { "q2_k", "attn_v.weight", ALWAYS, FORMAT_Q3_K },
    { "q2_k", "attn_output.weight", ALWAYS, FORMAT_Q3_K },
    { "q2_k", "ffn_down", ALWAYS, FORMAT_Q3_K },
};

struct place {                  /* of a tensor among its like */
    int i, n;
    bool importance, gqa_4, experts_8;
};

static bool applies(enum when w, const struct place *p)
{
    switch (w) {
    case ALWAYS: return true;
    case MORE_BITS: return p->i < p->n / 8 || p->i >= 7 * p->n / 8 || (p->i - p->n / 8) % 3 == 2;
    case FIRST_2: return p->i < 2;
    case FIRST_4: return p->i < 4;
    case FIRST_16TH: return p->i < p->n / 16;
    case FIRST_8TH: return p->i < p->n / 8;
    case GQA_4: return p->gqa_4;
    case WITH_IMPORTANCE_8TH: return p->importance && p->i < p->n / 8;
    case WITHOUT_IMPORTANCE_8TH: return !p->importance && p->i < p->n / 8;
    case EXPERTS_8: return p->experts_8;
    }
    return false;
}

static bool is_token_table(const char *name)
{
    return strcmp(name, "token_embd.weight") == 0 || strcmp(name, "per_layer_token_embd.weight") == 0;
}

static enum format_id table_format(const struct recipe *r, const struct tensor *t)
{
    if (r->embeddings != AUTO)
        return r->embeddings;
    if (r->base == FORMAT_Q8_0 || t->cols % formats[r->base].block)
        return FORMAT_Q8_0;
    return FORMAT_Q6_K;
}

static enum format_id matrix_format(const struct recipe *r, const struct model *m, const struct tensor *t,
                                    const struct place *p)
{
    const struct model_config *c = &m->config;
    bool head = strcmp(t->name, "output.weight") == 0;
    if (!formats[r->base].quantized)
        return r->base;
    if (head || (is_token_table(t->name) && (c->tied_output || r->embeddings != AUTO)))
        return table_format(r, t);
    enum format_id to = r->base;
    for (size_t i = 0; i < ARRAY_LEN(exceptions); i++) {
        const struct exception *e = &exceptions[i];
        if ((e->recipe && strcmp(e->recipe, r->name)) || !strstr(t->name, e->tensor) || !applies(e->when, p))
            continue;
        to = e->to;
        break;
    }
    /* 70B shapes: one small attn_v serves eight heads */
    if (strcmp(c->arch, "llama") == 0 && c->n_layers == 80 && c->n_heads != c->layers[0].n_kv_heads &&
        strstr(t->name, "attn_v.weight") && (to == FORMAT_Q3_K || to == FORMAT_Q4_K))
        to = FORMAT_Q5_K;
    return to;
}

/* ---- widths that do not fit ---- */

static enum format_id narrower(enum format_id f)
{
    static const enum format_id to[FORMAT_COUNT] = {
        [FORMAT_Q2_K] = FORMAT_Q4_0, [FORMAT_Q3_K] = FORMAT_Q4_0, [FORMAT_Q4_K] = FORMAT_Q5_0,
        [FORMAT_Q5_K] = FORMAT_Q5_1, [FORMAT_Q6_K] = FORMAT_Q8_0, [FORMAT_IQ4_XS] = FORMAT_IQ4_NL,
    };
    return to[f] ? to[f] : FORMAT_F16;
}

static enum format_id fitting(enum format_id f, const struct tensor *t)
{
    while (t->cols % formats[f].block)
        f = narrower(f);
    return f;
}

struct misfit {                 /* tensors of one width that got another format than the recipe's */
    enum format_id wanted, got;
    int64_t cols;
    int n;
    const char *first;
};
enum { MOST_MISFITS = 32 };

static void note_misfit(struct misfit *list, int *n, enum format_id wanted, enum format_id got, const struct tensor *t)
{
    int i = 0;
    while (i < *n && !(list[i].wanted == wanted && list[i].got == got && list[i].cols == t->cols))
        i++;
    if (i == MOST_MISFITS)
        return;
    if (i == *n)
        list[(*n)++] = (struct misfit){ wanted, got, t->cols, 0, t->name };
    list[i].n++;
}

static void warn_misfits(const struct misfit *list, int n, const struct quantize_options *o)
{
    for (int i = 0; i < n && o->warn; i++) {
        struct text w = { 0 };
        text_printf(&w, "%s", list[i].first);
        if (list[i].n > 1)
            text_printf(&w, " and %d more", list[i].n - 1);
        text_printf(&w, ": rows of %lld do not divide into %s blocks of %d; written as %s", (long long)list[i].cols,
                    formats[list[i].wanted].name, formats[list[i].wanted].block, formats[list[i].got].name);
        o->warn(o->ctx, text_str(&w));
        text_free(&w);
    }
}

bool recipe_apply(const struct recipe *r, const struct model *m, bool importance, const struct quantize_options *o,
                  enum format_id *to, struct error *err)
{
    const struct model_config *c = &m->config;
    struct place p = { .importance = importance };
    struct misfit misfits[MOST_MISFITS];
    int n_misfits = 0;
    int *v_rank = mem_new((size_t)c->n_layers + 1, sizeof *v_rank, err), n_v = 0;
    if (!v_rank)
        return false;
    for (int l = 0; l < c->n_layers; l++) {     /* attn_v counts only layers that have one */
        char name[64];
        snprintf(name, sizeof name, "blk.%d.attn_v.weight", l);
        v_rank[l] = n_v;
        n_v += model_find(m, name) != NULL;
    }
    for (int i = 0; i < m->n_tensors; i++) {
        const struct tensor *t = &m->tensors[i];
        int layer = tensor_layer(t->name);
        bool v = layer >= 0 && layer < c->n_layers && strstr(t->name, "attn_v.weight") != NULL;
        const struct layer_config *l = &c->layers[layer >= 0 && layer < c->n_layers ? layer : 0];
        p.i = v ? v_rank[layer] : layer;
        p.n = v ? n_v : c->n_layers;
        p.gqa_4 = l->n_kv_heads && c->n_heads / l->n_kv_heads >= 4;
        p.experts_8 = l->n_experts == 8;
        enum format_id wanted = is_matrix(t) ? matrix_format(r, m, t, &p) : kept_format(r, t);
        to[i] = is_matrix(t) ? fitting(wanted, t) : wanted;
        if (to[i] != wanted)
            note_misfit(misfits, &n_misfits, wanted, to[i], t);
        if (strcmp(r->name, "f32") == 0)
            to[i] = FORMAT_F32;
    }
    warn_misfits(misfits, n_misfits, o);
    free(v_rank);
    return true;
}
