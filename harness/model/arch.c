/* arch.c - architectures as rows of switches, and metadata -> model_config for all of them. */
#include "files.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_LAYERS = 4096, MAX_ROPE_TABLES = 8 };

static const struct arch archs[] = {
    { "gemma4", { "gemma4_text", "gemma4", "gemma4_unified_text", "gemma4_unified" }, "Gemma 4: E2B, E4B, 12B, 26B-A4B, 31B", .gemma = true, .qk_norm = true,
      .v_norm = true, .moe = true },
    { "gemma3", { "gemma3_text", "gemma3" }, "Gemma 3", .gemma = true, .norm_add = true, .qk_norm = true, .sliding_period = 6 },
    { "gemma2", { "gemma2" }, "Gemma 2", .gemma = true, .norm_add = true, .sliding_period = 2 },
    { "llama", { "llama", "mistral" }, "Llama 2 and 3.x, Mistral, SmolLM2", .adjacent = true },
    { "qwen2", { "qwen2" }, "Qwen2, Qwen2.5", .qkv_bias = true },
    { "qwen3", { "qwen3" }, "Qwen3", .qk_norm = true },
    { "qwen3moe", { "qwen3_moe" }, "Qwen3-MoE: 30B-A3B, 235B-A22B", .qk_norm = true, .moe = true },
    { "smollm3", { "smollm3" }, "SmolLM3", .adjacent = true },
};

const struct arch *arch_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(archs); i++)
        if (!strcmp(archs[i].name, name))
            return &archs[i];
    return NULL;
}

const struct arch *arch_of_hf(const char *model_type)
{
    for (size_t i = 0; i < ARRAY_LEN(archs); i++)
        for (size_t j = 0; j < ARRAY_LEN(archs[i].hf) && archs[i].hf[j]; j++)
            if (!strcmp(archs[i].hf[j], model_type))
                return &archs[i];
    return NULL;
}

bool model_arch(size_t i, const char **name, const char **models)
{
    if (i >= ARRAY_LEN(archs))
        return false;
    *name = archs[i].name;
    *models = archs[i].models;
    return true;
}

/* ---- reading keys of one architecture; the first failure sticks ---- */

struct reader {
    struct model *m;
    struct model_files *f;
    const struct arch *a;
    struct error *err;
    bool ok;
};

static const struct gguf_kv *find(const struct reader *r, const char *key, char full[96])
{
    snprintf(full, 96, "%s.%s", r->a->name, key);
    return kv_find(r->f, full);
}

static bool present(const struct reader *r, const char *key)
{
    char full[96];
    return find(r, key, full) != NULL;
}

/* Integer key in [lo, hi] (element layer of an array); absent: fallback, which is an error when below lo. */
static int int_at(struct reader *r, const char *key, int layer, int64_t fallback, int64_t lo, int64_t hi)
{
    char full[96];
    const struct gguf_kv *kv = find(r, key, full);
    int64_t v = fallback;
    if (!r->ok)
        return 0;
    if (kv && !kv_int_at(kv, (uint64_t)layer, &v))
        return r->ok = fail(r->err, STATUS_FORMAT, "%s: %s has type %s%s and no integer for layer %d", r->f->metadata_path, full,
                            gguf_type_name(kv->type), kv->type == GGUF_ARRAY ? " (too short?)" : "", layer);
    if (!kv && (v < lo || v > hi))
        return r->ok = fail(r->err, STATUS_FORMAT, "%s: no %s", r->f->metadata_path, full);
    if (v < lo || v > hi)
        return r->ok = fail(r->err, STATUS_FORMAT, "%s: %s is %lld, expected %lld to %lld", r->f->metadata_path, full, (long long)v, (long long)lo,
                            (long long)hi);
    return (int)v;
}

static int get_int(struct reader *r, const char *key, int64_t fallback, int64_t lo, int64_t hi)
{
    return int_at(r, key, 0, fallback, lo, hi);
}

/* Finite float key; NAN as fallback makes it required. */
static double get_float(struct reader *r, const char *key, double fallback)
{
    char full[96];
    const struct gguf_kv *kv = find(r, key, full);
    double v = fallback;
    if (!r->ok)
        return 0;
    if (kv && !kv_float(kv, &v))
        return r->ok = fail(r->err, STATUS_FORMAT, "%s: %s has type %s, expected a number", r->f->metadata_path, full, gguf_type_name(kv->type));
    if (!kv && isnan(v))
        return r->ok = fail(r->err, STATUS_FORMAT, "%s: no %s", r->f->metadata_path, full);
    if (!isfinite(v))
        return r->ok = fail(r->err, STATUS_FORMAT, "%s: %s is not finite", r->f->metadata_path, full);
    return v;
}

static bool unsupported(struct reader *r, const char *what)
{
    if (r->ok)
        fail(r->err, STATUS_UNSUPPORTED, "%s: %s (architecture %s)", r->f->metadata_path, what, r->a->name);
    return r->ok = false;
}

/* ---- keys that we understand; any other one of the architecture may change the arithmetic ---- */

static const char *const known_keys[] = {
    "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size", "attention.head_count",
    "attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.key_length_swa",
    "attention.value_length_swa", "attention.layer_norm_rms_epsilon", "attention.sliding_window",
    "attention.sliding_window_pattern", "attention.shared_kv_layers", "attention.scale", "embedding_length_per_layer_input",
    "rope.freq_base", "rope.freq_base_swa", "rope.dimension_count", "rope.dimension_count_swa", "rope.scaling.type",
    "rope.scaling.factor", "rope.scale_linear", "rope.scaling.original_context_length", "rope.scaling.finetuned",
    "final_logit_softcapping", "attn_logit_softcapping", "expert_count", "expert_used_count", "expert_feed_forward_length",
    "expert_weights_norm", "tensor_data_layout",
};

static bool is_neutral(const struct gguf_kv *kv)
{
    double v;
    return kv->type != GGUF_ARRAY && kv_float(kv, &v) && v == 0;
}

static bool check_keys(struct reader *r)
{
    char prefix[40];
    int len = snprintf(prefix, sizeof prefix, "%s.", r->a->name);
    for (size_t i = 0; i < r->f->n_kv; i++) {
        const struct gguf_kv *kv = &r->f->kv[i];
        bool known = !str_starts(kv->key, prefix) || is_neutral(kv);
        for (size_t k = 0; !known && k < ARRAY_LEN(known_keys); k++)
            known = !strcmp(kv->key + len, known_keys[k]);
        if (!known)
            return r->ok = fail(r->err, STATUS_UNSUPPORTED, "%s: key %s is not known to this program and may change the arithmetic",
                                r->f->metadata_path, kv->key);
    }
    return true;
}

/* ---- rope ---- */

/* Divisors of the angles that the file brings (Llama 3 scaling, Gemma 4's unrotated pairs); NULL if none. */
static bool rope_divisors(struct reader *r, int half, const float **out)
{
    struct raw_tensor *t = files_raw(r->f, "rope_freqs.weight");
    *out = NULL;
    /* Without it a Gemma 4 file would be run with all pairs rotating: fluent at first, wrong further on. */
    if (!t && r->ok && r->a->v_norm && r->m->source == MODEL_GGUF && r->f->n_raw)
        return r->ok = fail(r->err, STATUS_FORMAT, "%s: no tensor rope_freqs.weight, which says what part of a full layer's heads rotates",
                            r->f->metadata_path);
    if (!t || !r->ok)
        return r->ok;
    bool f32 = t->type == RAW_F32 || (t->type == RAW_GGML && t->format == FORMAT_F32);
    if (!f32 || t->dims[t->n_dims - 1] != half || t->bytes != (uint64_t)half * 4)
        return r->ok = fail(r->err, STATUS_FORMAT, "%s: rope_freqs.weight is %s with rows of %lld, expected f32 [%d]", t->file, t->type_name,
                            (long long)t->dims[t->n_dims - 1], half);
    float *copy = arena_new(&r->f->arena, (size_t)half * sizeof *copy, r->err);
    if (!copy)
        return r->ok = false;
    memcpy(copy, t->data, (size_t)half * sizeof *copy);
    for (int i = 0; i < half; i++)
        if (!(copy[i] > 0))
            return r->ok = fail(r->err, STATUS_FORMAT, "%s: rope_freqs.weight[%d] is %g, expected a positive divisor", t->file, i, (double)copy[i]);
    *out = copy;
    return true;
}

/* Index of the table for these frequencies, made on first use.  Angles per position: theta^(-2i/h) / factor / divisor;
 * a divisor of 1e30 is how files write "not rotated". */
static int rope_table(struct reader *r, int head, double theta, double factor, const float *divisors)
{
    struct model_config *c = &r->m->config;
    float *freq = arena_new(&r->f->arena, (size_t)(head / 2) * sizeof *freq, r->err);
    if (!r->ok || !freq)
        return r->ok = false, 0;
    for (int i = 0; i < head / 2; i++) {
        double divisor = factor * (divisors ? (double)divisors[i] : 1.0);
        freq[i] = divisor > 1e20 ? 0.0f : (1.0f / (float)pow(theta, 2.0 * i / head)) / (float)divisor;
    }
    for (int i = 0; i < c->n_rope; i++)
        if (c->rope[i].head_size == head && !memcmp(c->rope[i].inv_freq, freq, (size_t)(head / 2) * sizeof *freq))
            return i;
    if (c->n_rope == MAX_ROPE_TABLES)
        return unsupported(r, "more than 8 different rope tables"), 0;
    c->rope[c->n_rope] = (struct rope_table){ head, freq };
    return c->n_rope++;
}

struct rope_rule {
    double theta, theta_swa, factor;
};

static struct rope_rule rope_rule(struct reader *r)
{
    char full[96];
    const struct gguf_kv *type = find(r, "rope.scaling.type", full);
    const char *name = type && type->type == GGUF_STRING ? type->value.s.data : "none";
    struct rope_rule rule = { .theta = get_float(r, "rope.freq_base", 10000), .factor = get_float(r, "rope.scale_linear", 1) };
    rule.theta_swa = get_float(r, "rope.freq_base_swa", r->a->sliding_period == 2 ? rule.theta : 10000);
    if (!strcmp(name, "linear"))
        rule.factor = get_float(r, "rope.scaling.factor", 1);
    else if (strcmp(name, "none") && r->ok)
        r->ok = fail(r->err, STATUS_UNSUPPORTED, "%s: %s is \"%s\"; only linear scaling and rope_freqs are known", r->f->metadata_path, full, name);
    if (r->ok && !(rule.theta > 1 && rule.theta_swa > 1 && rule.factor > 0))
        unsupported(r, "rope base or factor out of range");
    return rule;
}

static void layer_rope(struct reader *r, const struct rope_rule *rule, int i)
{
    struct layer_config *l = &r->m->config.layers[i];
    bool local = l->sliding && r->a->gemma;
    const float *divisors = NULL;
    const char *key = local && present(r, "attention.key_length_swa") ? "rope.dimension_count_swa" : "rope.dimension_count";
    int rotated = get_int(r, key, l->head_size, 1, 1 << 16);
    if (r->ok && rotated != l->head_size) {
        unsupported(r, "rope.dimension_count differs from the head size: rotating part of a head is not supported");
        return;
    }
    l->rope = strcmp(r->a->name, "smollm3") || (i + 1) % 4;
    if (!local && !rope_divisors(r, l->head_size / 2, &divisors))
        return;
    l->rope_table = rope_table(r, l->head_size, local ? rule->theta_swa : rule->theta, local ? 1 : rule->factor, divisors);
}

/* ---- layers ---- */

static bool layer_slides(struct reader *r, int i)
{
    char full[96];
    const struct gguf_kv *kv = find(r, "attention.sliding_window_pattern", full);
    int64_t v = r->a->sliding_period;
    if (!kv && !r->a->gemma)
        return true;            /* Mistral: a window, and no full layer */
    if (kv && !kv_int_at(kv, (uint64_t)i, &v))
        return r->ok = fail(r->err, STATUS_FORMAT, "%s: %s has no value for layer %d", r->f->metadata_path, full, i);
    if (kv && kv->type == GGUF_ARRAY)
        return v != 0;
    if (!kv && !v)
        return r->ok = fail(r->err, STATUS_FORMAT, "%s: no %s", r->f->metadata_path, full);
    return v > 0 && (i + 1) % v != 0;
}

static void layer_shape(struct reader *r, int i, int window, int shared)
{
    struct model_config *c = &r->m->config;
    struct layer_config *l = &c->layers[i];
    int own = c->n_layers - shared;
    l->sliding = window && layer_slides(r, i);
    l->window = l->sliding ? window : 0;
    bool swa_keys = l->sliding && present(r, "attention.key_length_swa");
    l->head_size = int_at(r, swa_keys ? "attention.key_length_swa" : "attention.key_length", i, c->hidden / c->n_heads, 2, 1 << 14);
    int value = int_at(r, swa_keys ? "attention.value_length_swa" : "attention.value_length", i, l->head_size, 1, 1 << 14);
    l->n_kv_heads = int_at(r, "attention.head_count_kv", i, c->n_heads, 1, c->n_heads);
    l->kv_source = i;
    if (!r->ok)
        return;
    if (value != l->head_size || l->head_size % 2 || c->n_heads % l->n_kv_heads)
        unsupported(r, "odd head size, a value size unlike the key size, or heads that are no multiple of the K/V heads");
    for (int j = own - 1; i >= own && j >= 0; j--)
        if (c->layers[j].sliding == l->sliding) {
            l->kv_source = j;
            break;
        }
    if (r->ok && i >= own && l->kv_source == i)
        unsupported(r, "a layer borrows K/V but no earlier layer of its kind has any");
}

static void layer_ffn(struct reader *r, int i)
{
    struct layer_config *l = &r->m->config.layers[i];
    l->n_experts = get_int(r, "expert_count", 0, 0, 4096);
    if (l->n_experts && !r->a->moe)
        unsupported(r, "experts in an architecture without them");
    if (l->n_experts) {
        l->moe = r->a->gemma ? MOE_GEMMA4 : MOE_QWEN;
        l->n_experts_used = get_int(r, "expert_used_count", 0, 1, l->n_experts);
        l->expert_ffn_size = int_at(r, "expert_feed_forward_length", i, 0, 1, 1 << 24);
    } else if (r->a->moe && !r->a->gemma)
        unsupported(r, "no expert_count");
    if (l->moe != MOE_QWEN)
        l->ffn_size = int_at(r, "feed_forward_length", i, 0, 1, 1 << 24);
}

static void layer_tensors(struct reader *r, int i, bool (*has)(const struct model *m, const char *name))
{
    struct layer_config *l = &r->m->config.layers[i];
    char name[64];
    snprintf(name, sizeof name, "blk.%d.attn_v.weight", i);
    l->v_from_k = r->a->v_norm && !l->sliding && l->kv_source == i && !has(r->m, name);
}

/* ---- global values ---- */

static float attention_scale(struct reader *r)
{
    const struct model_config *c = &r->m->config;
    /* The largest Gemma 2 and 3 scale by width over heads; no key says so. */
    bool by_width = (!strcmp(r->a->name, "gemma3") && c->n_layers == 62) || (!strcmp(r->a->name, "gemma2") && c->n_layers == 46);
    double base = by_width ? (double)c->hidden / c->n_heads : (double)c->layers[0].head_size;
    double scale = r->a->v_norm ? 1.0 : 1.0 / sqrt(base);
    return (float)get_float(r, "attention.scale", scale);
}

static int64_t id_or_none(const struct model_files *f, const char *key, int vocab)
{
    const struct gguf_kv *kv = kv_find(f, key);
    int64_t v;
    return kv && kv_int_at(kv, 0, &v) && v >= 0 && v < vocab ? v : -1;
}

static void add_stop(struct model_config *c, int64_t id)
{
    for (int i = 0; i < c->n_stop; i++)
        if (c->stop_ids[i] == id)
            return;
    if (id >= 0 && id < c->vocab && c->n_stop < (int)ARRAY_LEN(c->stop_ids))
        c->stop_ids[c->n_stop++] = (int)id;
}

/* Control tokens that end an answer, whatever the eos key says. */
static void stops_by_name(const struct model_files *f, struct model_config *c)
{
    static const char *const ends[] = { "<end_of_turn>", "<turn|>", "<|tool_response>", "<|eot_id|>", "<|eom_id|>", "<|im_end|>",
                                        "<|endoftext|>", "<|end_of_text|>" };
    const struct gguf_kv *tokens = kv_find(f, "tokenizer.ggml.tokens"), *kinds = kv_find(f, "tokenizer.ggml.token_type");
    if (!tokens || !kinds || tokens->type != GGUF_ARRAY || tokens->element != GGUF_STRING || tokens->count > (uint64_t)c->vocab)
        return;
    const struct gguf_string *s = tokens->value.array;
    for (uint64_t i = 0; i < tokens->count; i++) {
        int64_t kind;
        if (s[i].len < 5 || s[i].data[0] != '<' || !kv_int_at(kinds, i, &kind) || kind == TOKEN_NORMAL)
            continue;
        for (size_t e = 0; e < ARRAY_LEN(ends); e++)
            if (s[i].len == strlen(ends[e]) && !memcmp(s[i].data, ends[e], s[i].len))
                add_stop(c, (int64_t)i);
    }
}

static void special_ids(struct reader *r)
{
    struct model_config *c = &r->m->config;
    c->bos = (int)id_or_none(r->f, "tokenizer.ggml.bos_token_id", c->vocab);
    c->eos = (int)id_or_none(r->f, "tokenizer.ggml.eos_token_id", c->vocab);
    c->pad = (int)id_or_none(r->f, "tokenizer.ggml.padding_token_id", c->vocab);
    add_stop(c, c->eos);
    add_stop(c, id_or_none(r->f, "tokenizer.ggml.eot_token_id", c->vocab));
    add_stop(c, id_or_none(r->f, "tokenizer.ggml.eom_token_id", c->vocab));
    const struct gguf_kv *more = kv_find(r->f, "qdelta.stop_token_ids");
    int64_t id;
    for (uint64_t i = 0; more && kv_int_at(more, i, &id) && i < more->count; i++)
        add_stop(c, id);
    stops_by_name(r->f, c);
}

static void global_values(struct reader *r, bool (*has)(const struct model *m, const char *name))
{
    struct model_config *c = &r->m->config;
    c->arch = r->a->name;
    c->n_layers = get_int(r, "block_count", 0, 1, MAX_LAYERS);
    c->hidden = get_int(r, "embedding_length", 0, 1, 1 << 20);
    c->n_heads = get_int(r, "attention.head_count", 0, 1, 4096);
    c->context = get_int(r, "context_length", 0, 1, INT32_MAX);
    c->eps = (float)get_float(r, "attention.layer_norm_rms_epsilon", NAN);
    c->embed_scale = r->a->gemma ? sqrtf((float)c->hidden) : 1;
    c->attn_softcap = (float)get_float(r, "attn_logit_softcapping", !strcmp(r->a->name, "gemma2") ? 50 : 0);
    c->final_softcap = (float)get_float(r, "final_logit_softcapping", !strcmp(r->a->name, "gemma2") ? 30 : 0);
    c->activation = r->a->gemma ? ACTIVATION_GELU_TANH : ACTIVATION_SILU;
    c->sandwich_norms = r->a->gemma;
    c->qk_norm = r->a->qk_norm;
    c->v_norm = r->a->v_norm;
    c->qkv_bias = r->a->qkv_bias;
    c->rope_pairs_adjacent = r->a->adjacent && r->m->source == MODEL_GGUF;
    c->ple_size = get_int(r, "embedding_length_per_layer_input", 0, 0, 1 << 16);
    c->norm_topk = r->a->moe && get_int(r, "expert_weights_norm", 1, 0, 1);
    c->layer_scale = has(r->m, "blk.0.layer_output_scale.weight");
    c->tied_output = !has(r->m, "output.weight");
    if (r->ok && c->ple_size && !r->a->v_norm)
        unsupported(r, "per-layer embeddings in an architecture without them");
}

/* Rows of the embedding are the vocabulary; a key or token list that says otherwise is an error. */
static void vocabulary(struct reader *r)
{
    const struct gguf_kv *tokens = kv_find(r->f, "tokenizer.ggml.tokens");
    const struct raw_tensor *t = files_raw(r->f, "token_embd.weight");
    int64_t rows = r->m->source == MODEL_GGUF && t && t->n_dims == 2 ? t->dims[0] : -1;
    if (rows > 1 << 24)
        unsupported(r, "token_embd.weight has more than 2^24 rows");
    r->m->config.vocab = get_int(r, "vocab_size", rows, 1, 1 << 24);
    if (r->ok && rows > 0 && rows != r->m->config.vocab)
        r->ok = fail(r->err, STATUS_FORMAT, "%s: token_embd.weight has %lld rows, %s.vocab_size is %d", r->f->metadata_path, (long long)rows, r->a->name,
                     r->m->config.vocab);
    if (r->ok && tokens && tokens->type == GGUF_ARRAY && tokens->count > (uint64_t)r->m->config.vocab)
        r->ok = fail(r->err, STATUS_FORMAT, "%s: %llu tokens, but the embedding has %d rows", r->f->metadata_path, (unsigned long long)tokens->count,
                     r->m->config.vocab);
}

bool config_from_metadata(struct model *m, struct model_files *f, const struct arch *a, bool (*has)(const struct model *m, const char *gguf_name),
                          struct error *err)
{
    struct reader r = { m, f, a, err, true };
    struct model_config *c = &m->config;
    if (!check_keys(&r))
        return false;
    global_values(&r, has);
    vocabulary(&r);
    if (!r.ok)
        return false;
    c->layers = arena_new(&f->arena, (size_t)c->n_layers * sizeof *c->layers, err);
    c->rope = arena_new(&f->arena, MAX_ROPE_TABLES * sizeof *c->rope, err);
    if (!c->layers || !c->rope)
        return false;
    struct rope_rule rule = rope_rule(&r);
    int window = get_int(&r, "attention.sliding_window", !strcmp(a->name, "gemma2") ? 4096 : 0, 0, INT32_MAX);
    int shared = get_int(&r, "attention.shared_kv_layers", 0, 0, c->n_layers - 1);
    for (int i = 0; r.ok && i < c->n_layers; i++) {
        layer_shape(&r, i, window, shared);
        layer_ffn(&r, i);
        if (r.ok) {
            layer_tensors(&r, i, has);
            layer_rope(&r, &rule, i);
        }
    }
    if (r.ok) {
        c->attn_scale = attention_scale(&r);
        special_ids(&r);
    }
    return r.ok;
}
