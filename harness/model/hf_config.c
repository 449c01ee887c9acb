/* hf_config.c - a Hugging Face config.json as GGUF key-values, so that one function builds the config from either. */
#include "files.h"

#include <math.h>
#include <stdlib.h>

struct converter {              /* the first failure sticks */
    struct model_files *f;
    const cJSON *root, *text;   /* text_config of multimodal files, else root */
    const struct arch *a;
    int layers, heads, kv_heads, head, head_full, ffn;
    bool *sliding;              /* [layers] */
    struct error *err;
    bool ok;
};

static bool is_arch(const struct converter *c, const char *name)
{
    return !strcmp(c->a->name, name);
}

static const cJSON *get(const struct converter *c, const char *key)
{
    const cJSON *v = json_get(c->text, key);
    return v ? v : json_get(c->root, key);
}

static void refuse(struct converter *c, const char *key, const char *why)
{
    if (!c->ok)
        return;
    const cJSON *v = get(c, key);
    char *found = v ? cJSON_PrintUnformatted(v) : NULL;
    c->ok = fail(c->err, STATUS_UNSUPPORTED, "%s: %s %.60s: %s", c->f->metadata_path, key, found ? found : "(absent)", why);
    cJSON_free(found);
}

/* A number; NAN as fallback makes the key required. */
static double number(struct converter *c, const cJSON *v, const char *key, double fallback)
{
    if (!v && !isnan(fallback))
        return fallback;
    if (!v || !cJSON_IsNumber(v) || !isfinite(v->valuedouble)) {
        if (c->ok)
            c->ok = fail(c->err, STATUS_FORMAT, "%s: %s is %s, expected a number", c->f->metadata_path, key, v ? "something else" : "missing");
        return 0;
    }
    return v->valuedouble;
}

static double num(struct converter *c, const char *key, double fallback)
{
    return number(c, get(c, key), key, fallback);
}

static int whole(struct converter *c, const char *key, double fallback)
{
    double v = num(c, key, fallback);
    if (c->ok && (v < 0 || v > INT32_MAX || v != floor(v)))
        c->ok = fail(c->err, STATUS_FORMAT, "%s: %s is %g, expected a whole number", c->f->metadata_path, key, v);
    return c->ok ? (int)v : 0;
}

static bool truth(const struct converter *c, const char *key, bool fallback)
{
    const cJSON *v = get(c, key);
    return v ? cJSON_IsTrue(v) : fallback;
}

static const char *name_of(const struct converter *c, const char *key, char full[96])
{
    snprintf(full, 96, "%s.%s", c->a->name, key);
    return full;
}

static void put_int(struct converter *c, const char *key, int v)
{
    char full[96];
    c->ok = c->ok && kv_add_int(c->f, name_of(c, key, full), v, c->err);
}

static void put_float(struct converter *c, const char *key, double v)
{
    char full[96];
    c->ok = c->ok && kv_add_float(c->f, name_of(c, key, full), v, c->err);
}

/* ---- what we do not compute, so must not meet ---- */

static void refuse_unless_false(struct converter *c)
{
    static const char *const keys[] = { "attention_bias", "mlp_bias", "use_sliding_window", "attn_output_gate", "use_qk_norm", "clip_qkv",
                                        "qk_layernorm", "alibi", "parallel_attn", "add_cross_attention", "is_encoder_decoder", "attention_multiplier",
                                        "residual_multiplier", "embedding_multiplier", "logits_scaling", "altup_num_inputs", "laurel_rank",
                                        "activation_sparsity_pattern", "num_shared_experts", "first_k_dense_replace", "kv_lora_rank", "q_lora_rank" };
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const cJSON *v = get(c, keys[i]);
        bool neutral = !v || cJSON_IsFalse(v) || (cJSON_IsNumber(v) && v->valuedouble == 0) || (is_arch(c, "qwen2") && !strcmp(keys[i], "attention_bias"));
        if (!neutral)
            refuse(c, keys[i], "not supported by this program");
    }
}

static void check_activation(struct converter *c)
{
    static const char *const keys[] = { "hidden_act", "hidden_activation" };
    const char *want = c->a->gemma ? "gelu_pytorch_tanh" : "silu";
    for (int i = 0; i < 2; i++) {
        const cJSON *v = get(c, keys[i]);
        /* Gemma 2's first files carry hidden_act "gelu_pytorch_tanh"; hidden_activation decides where both stand. */
        if (v && (!cJSON_IsString(v) || strcmp(v->valuestring, want)) && !(i == 0 && get(c, keys[1])))
            refuse(c, keys[i], c->a->gemma ? "only gelu_pytorch_tanh is known here" : "only silu is known here");
    }
}

static void check_unsupported(struct converter *c)
{
    const cJSON *v = get(c, "use_bidirectional_attention");
    refuse_unless_false(c);
    check_activation(c);
    if (v && !cJSON_IsFalse(v) && !(cJSON_IsString(v) && !strcmp(v->valuestring, "vision")))
        refuse(c, "use_bidirectional_attention", "only causal attention is supported");
    if (get(c, "attn_logit_softcapping") && !is_arch(c, "gemma2"))
        refuse(c, "attn_logit_softcapping", "not part of this architecture");
    if (get(c, "final_logit_softcapping") && !c->a->gemma)
        refuse(c, "final_logit_softcapping", "not part of this architecture");
    if (get(c, "is_causal") && !truth(c, "is_causal", true))
        refuse(c, "is_causal", "only causal attention is supported");
    if (whole(c, "decoder_sparse_step", 1) != 1)
        refuse(c, "decoder_sparse_step", "only 1 is supported: every layer has experts");
    if (cJSON_GetArraySize(get(c, "mlp_only_layers")) > 0)
        refuse(c, "mlp_only_layers", "only an empty list is supported");
    if (!c->a->moe && (whole(c, "num_experts", 0) || whole(c, "num_local_experts", 0)))
        refuse(c, get(c, "num_experts") ? "num_experts" : "num_local_experts", "this architecture is known without experts");
    if (get(c, "vocab_size_per_layer_input") && whole(c, "vocab_size_per_layer_input", 0) != whole(c, "vocab_size", -1) && c->ok)
        refuse(c, "vocab_size_per_layer_input", "only supported when equal to vocab_size");
    for (int i = 0; i < cJSON_GetArraySize(get(c, "no_rope_layers")) && is_arch(c, "smollm3"); i++) {
        const cJSON *e = cJSON_GetArrayItem(get(c, "no_rope_layers"), i);
        if (!cJSON_IsNumber(e) || (e->valuedouble != 0) != ((i + 1) % 4 != 0))
            refuse(c, "no_rope_layers", "only every fourth layer without rope is supported");
    }
    if (is_arch(c, "smollm3") && !get(c, "no_rope_layers") && whole(c, "no_rope_layer_interval", 4) != 4)
        refuse(c, "no_rope_layer_interval", "only 4 is supported");
}

/* ---- layers ---- */

/* Which layers slide: from layer_types, or from the period, or (Mistral) all of them. */
static void sliding_layers(struct converter *c)
{
    const cJSON *types = get(c, "layer_types"), *e;
    int n = 0, period = c->a->sliding_period ? c->a->sliding_period : 6;
    bool mistral = is_arch(c, "llama") && get(c, "sliding_window") != NULL;
    period = whole(c, get(c, "_sliding_window_pattern") ? "_sliding_window_pattern" : "sliding_window_pattern", period);
    for (int i = 0; i < c->layers; i++)
        c->sliding[i] = c->a->gemma ? period > 0 && (i + 1) % period != 0 && !(is_arch(c, "gemma4") && i == c->layers - 1) : mistral;
    cJSON_ArrayForEach(e, types) {
        bool slides = cJSON_IsString(e) && !strcmp(e->valuestring, "sliding_attention");
        if (n < c->layers && cJSON_IsString(e) && (slides || !strcmp(e->valuestring, "full_attention")))
            c->sliding[n] = slides;
        else
            refuse(c, "layer_types", "expected sliding_attention or full_attention once for each layer");
        if (slides && !c->a->gemma && !mistral)
            refuse(c, "layer_types", "sliding layers are not known in this architecture");
        n++;
    }
    if (types && n != c->layers)
        refuse(c, "layer_types", "its length is not num_hidden_layers");
}

static void put_sliding(struct converter *c)
{
    char full[96];
    int32_t *flags = mem_new((size_t)c->layers + 1, sizeof *flags, c->err);
    bool any = false, usual = true;
    if (!flags) {
        c->ok = false;
        return;
    }
    for (int i = 0; i < c->layers; i++) {
        flags[i] = c->sliding[i];
        any |= c->sliding[i];
        usual &= c->sliding[i] == (c->a->sliding_period ? (i + 1) % c->a->sliding_period != 0 : !c->a->gemma);
    }
    if (any || is_arch(c, "gemma2"))
        put_int(c, "attention.sliding_window", whole(c, "sliding_window", is_arch(c, "gemma4") ? 512 : 4096));
    if (any && !usual)
        c->ok = c->ok && kv_add_ints(c->f, name_of(c, "attention.sliding_window_pattern", full), GGUF_BOOL, flags, c->layers, c->err);
    free(flags);
}

/* per_layer_config, the newer spelling: layer number -> what differs there. */
static const cJSON *layer_override(struct converter *c, int layer, const char *key)
{
    char number_text[16];
    snprintf(number_text, sizeof number_text, "%d", layer);
    const cJSON *all = get(c, "per_layer_config"), *one = all ? json_get(all, number_text) : NULL, *e;
    cJSON_ArrayForEach(e, one)
        if (strcmp(e->string, "head_dim") && strcmp(e->string, "num_key_value_heads"))
            refuse(c, "per_layer_config", "holds a key that this program does not know");
    return one ? json_get(one, key) : NULL;
}

static void put_heads(struct converter *c)
{
    int32_t *kv = mem_new((size_t)c->layers + 1, sizeof *kv, c->err);
    bool same = true, g4 = is_arch(c, "gemma4");
    char full[96];
    if (!kv) {
        c->ok = false;
        return;
    }
    int global_kv = g4 && truth(c, "attention_k_eq_v", false) ? whole(c, "num_global_key_value_heads", c->kv_heads) : c->kv_heads;
    c->head_full = g4 ? whole(c, "global_head_dim", get(c, "per_layer_config") ? c->head : 512) : c->head;
    int first_full = -1;
    for (int i = 0; i < c->layers; i++) {
        int head = (int)number(c, layer_override(c, i, "head_dim"), "per_layer_config head_dim", c->sliding[i] ? c->head : c->head_full);
        kv[i] = (int32_t)number(c, layer_override(c, i, "num_key_value_heads"), "per_layer_config num_key_value_heads", c->sliding[i] ? c->kv_heads : global_kv);
        if (!c->sliding[i] && first_full < 0) {
            first_full = i;
            c->head_full = head;
        }
        if (head != (c->sliding[i] ? c->head : c->head_full))
            refuse(c, "per_layer_config", "head sizes that differ between layers of one kind are not supported");
        same &= kv[i] == kv[0];
    }
    if (same)
        put_int(c, "attention.head_count_kv", kv[0]);
    else
        c->ok = c->ok && kv_add_ints(c->f, name_of(c, "attention.head_count_kv", full), GGUF_I32, kv, c->layers, c->err);
    free(kv);
    put_int(c, "attention.key_length", c->head_full);
    put_int(c, "attention.value_length", c->head_full);
    put_int(c, "rope.dimension_count", c->head_full);
    if (g4) {
        put_int(c, "attention.key_length_swa", c->head);
        put_int(c, "attention.value_length_swa", c->head);
        put_int(c, "rope.dimension_count_swa", c->head);
    }
}

static void put_ffn(struct converter *c)
{
    int shared = is_arch(c, "gemma4") ? whole(c, "num_kv_shared_layers", 0) : 0;
    char full[96];
    if (is_arch(c, "gemma4")) {
        put_int(c, "attention.shared_kv_layers", shared);
        bool ple = files_raw(c->f, "model.embed_tokens_per_layer.weight") != NULL;
        put_int(c, "embedding_length_per_layer_input", whole(c, "hidden_size_per_layer_input", ple ? 256 : 0));
    }
    if (!shared || !truth(c, "use_double_wide_mlp", false)) {
        put_int(c, "feed_forward_length", c->ffn);
        return;
    }
    int32_t *f = mem_new((size_t)c->layers + 1, sizeof *f, c->err);
    c->ok = c->ok && f;
    for (int i = 0; c->ok && i < c->layers; i++)
        f[i] = i < c->layers - shared ? c->ffn : 2 * c->ffn;
    c->ok = c->ok && kv_add_ints(c->f, name_of(c, "feed_forward_length", full), GGUF_I32, f, c->layers, c->err);
    free(f);
}

static void put_experts(struct converter *c)
{
    bool g4 = is_arch(c, "gemma4");
    if (!c->a->moe || (g4 && !truth(c, "enable_moe_block", false)))
        return;
    put_int(c, "expert_count", whole(c, get(c, "num_experts") ? "num_experts" : "num_local_experts", NAN));
    put_int(c, "expert_used_count", whole(c, g4 ? "top_k_experts" : "num_experts_per_tok", NAN));
    put_int(c, "expert_feed_forward_length", whole(c, "moe_intermediate_size", NAN));
    if (!g4 && !truth(c, "norm_topk_prob", false))
        put_int(c, "expert_weights_norm", 0);
}

/* ---- rope ---- */

/* Divisors become a tensor, as in a GGUF, so that both sources compute the same angles. */
static void put_divisors(struct converter *c, const float *divisors, int half)
{
    struct raw_tensor t = { .name = "rope_freqs.weight", .file = c->f->metadata_path, .type = RAW_F32, .type_name = "F32", .n_dims = 1,
                            .dims = { half }, .data = (const uint8_t *)divisors, .bytes = (uint64_t)half * sizeof *divisors };
    c->ok = c->ok && files_add_raw(c->f, &t, c->err);
}

/* Llama 3.1: long wavelengths are slowed by factor, short ones kept, those between blended. */
static void llama3_divisors(struct converter *c, const cJSON *r, double theta, int head, float *out)
{
    double factor = number(c, json_get(r, "factor"), "rope factor", NAN), low = number(c, json_get(r, "low_freq_factor"), "low_freq_factor", NAN);
    double high = number(c, json_get(r, "high_freq_factor"), "high_freq_factor", NAN);
    double original = number(c, json_get(r, "original_max_position_embeddings"), "original_max_position_embeddings", NAN);
    if (c->ok && !(factor > 0 && high > low && low > 0 && original > 0))
        c->ok = fail(c->err, STATUS_FORMAT, "%s: llama3 rope scaling has numbers out of range", c->f->metadata_path);
    for (int i = 0; c->ok && i < head / 2; i++) {
        double freq = pow(theta, -2.0 * i / head), wavelength = 2 * 3.14159265358979323846 / freq;
        double smooth = (original / wavelength - low) / (high - low);
        smooth = smooth < 0 ? 0 : smooth > 1 ? 1 : smooth;
        out[i] = (float)(1 / ((1 - smooth) / factor + smooth));
    }
}

static void proportional_divisors(struct converter *c, const cJSON *r, int head, float *out)
{
    double part = number(c, json_get(r, "partial_rotary_factor"), "partial_rotary_factor", 1), factor = number(c, json_get(r, "factor"), "rope factor", 1);
    int rotated = (int)(part * head / 2);
    if (c->ok && !(part > 0 && part <= 1 && factor > 0))
        c->ok = fail(c->err, STATUS_FORMAT, "%s: partial_rotary_factor %g or factor %g out of range", c->f->metadata_path, part, factor);
    for (int i = 0; i < head / 2; i++)
        out[i] = i < rotated ? (float)factor : 1e30f;
}

static void put_rope_type(struct converter *c, const cJSON *r, double theta)
{
    const cJSON *type = json_get(r, json_get(r, "rope_type") ? "rope_type" : "type");
    const char *name = cJSON_IsString(type) ? type->valuestring : "default";
    float *divisors = arena_new(&c->f->arena, (size_t)c->head_full * sizeof *divisors, c->err);
    char full[96];
    bool partial = json_get(r, "partial_rotary_factor") && number(c, json_get(r, "partial_rotary_factor"), "partial_rotary_factor", 1) != 1;
    if (!divisors)
        c->ok = false;
    else if (strcmp(name, "proportional") && partial)
        refuse(c, "rope_parameters", "partial_rotary_factor other than 1 is only known with rope_type proportional");
    else if (!strcmp(name, "llama3")) {
        llama3_divisors(c, r, theta, c->head_full, divisors);
        put_divisors(c, divisors, c->head_full / 2);
    } else if (!strcmp(name, "proportional")) {
        proportional_divisors(c, r, c->head_full, divisors);
        put_divisors(c, divisors, c->head_full / 2);
    } else if (!strcmp(name, "linear")) {
        c->ok = c->ok && kv_add_str(c->f, name_of(c, "rope.scaling.type", full), "linear", c->err);
        put_float(c, "rope.scaling.factor", number(c, json_get(r, "factor"), "rope factor", NAN));
    } else if (strcmp(name, "default"))
        refuse(c, get(c, "rope_parameters") ? "rope_parameters" : "rope_scaling", "this rope_type is not supported (known: default, linear, llama3, proportional)");
}

static double default_theta(const struct converter *c)
{
    return is_arch(c, "gemma3") || is_arch(c, "gemma4") ? 1000000 : is_arch(c, "smollm3") ? 2000000 : 10000;
}

/* rope_parameters (flat, or one for each kind of layer), or the older rope_theta, rope_scaling, rope_local_base_freq. */
static void put_rope(struct converter *c)
{
    const cJSON *all = get(c, "rope_parameters"), *full = all ? json_get(all, "full_attention") : NULL, *local = all ? json_get(all, "sliding_attention") : NULL;
    const cJSON *rule = full ? full : all ? all : get(c, "rope_scaling");
    const cJSON *theta_json = rule && json_get(rule, "rope_theta") ? json_get(rule, "rope_theta") : get(c, "rope_theta");
    double theta = number(c, theta_json, "rope_theta", default_theta(c));
    const cJSON *local_theta = local && json_get(local, "rope_theta") ? json_get(local, "rope_theta") : get(c, "rope_local_base_freq");
    const cJSON *local_type = local ? json_get(local, "rope_type") : NULL;
    put_float(c, "rope.freq_base", theta);
    if (is_arch(c, "gemma3") || is_arch(c, "gemma4"))
        put_float(c, "rope.freq_base_swa", number(c, local_theta, "rope_local_base_freq", 10000));
    if (local_type && (!cJSON_IsString(local_type) || strcmp(local_type->valuestring, "default")))
        refuse(c, "rope_parameters", "sliding layers are only known with rope_type default");
    if (get(c, "partial_rotary_factor") && num(c, "partial_rotary_factor", 1) != 1)
        refuse(c, "partial_rotary_factor", "rotating part of a head is not supported");
    if (c->ok && !is_arch(c, "gemma4") && rule == all && full == NULL && local)
        refuse(c, "rope_parameters", "sliding_attention without full_attention");
    if (c->ok && rule)
        put_rope_type(c, rule, theta);
}

/* ---- globals ---- */

static void put_softcaps(struct converter *c)
{
    if (is_arch(c, "gemma2"))
        put_float(c, "attn_logit_softcapping", num(c, "attn_logit_softcapping", get(c, "final_logit_softcapping") ? 0 : 50));
    if (is_arch(c, "gemma2") || get(c, "final_logit_softcapping"))
        put_float(c, "final_logit_softcapping", num(c, "final_logit_softcapping", 0));
}

static void put_scale(struct converter *c)
{
    if (!is_arch(c, "gemma2") && !is_arch(c, "gemma3"))
        return;
    double scalar = num(c, "query_pre_attn_scalar", 256);
    bool by_width = c->layers == (is_arch(c, "gemma3") ? 62 : 46);
    double usual = by_width ? num(c, "hidden_size", NAN) / c->heads : c->head_full;
    if (c->ok && !(scalar > 0))
        refuse(c, "query_pre_attn_scalar", "must be positive");
    if (scalar != usual)
        put_float(c, "attention.scale", 1 / sqrt(scalar));
}

static void put_ids(struct converter *c, const cJSON *generation)
{
    static const struct { const char *hf, *gguf; } ids[] = {
        { "bos_token_id", "tokenizer.ggml.bos_token_id" }, { "eos_token_id", "tokenizer.ggml.eos_token_id" }, { "pad_token_id", "tokenizer.ggml.padding_token_id" },
    };
    int32_t stops[8];
    int n = 0;
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        const cJSON *v = get(c, ids[i].hf), *first = cJSON_IsArray(v) ? v->child : v;
        if (!v && generation)
            v = json_get(generation, ids[i].hf), first = cJSON_IsArray(v) ? v->child : v;
        if (cJSON_IsNumber(first) && first->valuedouble >= 0 && first->valuedouble <= INT32_MAX)
            c->ok = c->ok && kv_add_int(c->f, ids[i].gguf, (int)first->valuedouble, c->err);
    }
    for (int s = 0; s < 2; s++) {
        const cJSON *v = s ? (generation ? json_get(generation, "eos_token_id") : NULL) : get(c, "eos_token_id");
        for (const cJSON *e = cJSON_IsArray(v) ? v->child : v; e && n < 8; e = cJSON_IsArray(v) ? e->next : NULL)
            if (cJSON_IsNumber(e) && e->valuedouble >= 0 && e->valuedouble <= INT32_MAX)
                stops[n++] = (int32_t)e->valuedouble;
    }
    if (n > 1)
        c->ok = c->ok && kv_add_ints(c->f, "qdelta.stop_token_ids", GGUF_I32, stops, n, c->err);
}

static void put_sizes(struct converter *c)
{
    bool gemma3 = is_arch(c, "gemma3");
    c->layers = whole(c, "num_hidden_layers", NAN);
    c->heads = whole(c, "num_attention_heads", gemma3 ? 8 : NAN);
    c->kv_heads = whole(c, "num_key_value_heads", gemma3 ? 4 : c->heads);
    c->ffn = whole(c, "intermediate_size", NAN);
    int hidden = whole(c, "hidden_size", NAN);
    if (c->ok && (c->layers < 1 || c->layers > 4096 || c->heads < 1 || hidden < 1))
        c->ok = fail(c->err, STATUS_FORMAT, "%s: %d layers, %d heads, hidden size %d make no model", c->f->metadata_path, c->layers, c->heads, hidden);
    if (!c->ok)
        return;
    c->head = whole(c, "head_dim", c->a->gemma ? 256 : is_arch(c, "qwen3") || is_arch(c, "qwen3moe") ? 128 : hidden / c->heads);
    put_int(c, "block_count", c->layers);
    put_int(c, "context_length", whole(c, "max_position_embeddings", gemma3 ? 131072 : NAN));
    put_int(c, "embedding_length", hidden);
    put_int(c, "attention.head_count", c->heads);
    put_int(c, "vocab_size", whole(c, "vocab_size", gemma3 ? 262208 : NAN));
    put_float(c, "attention.layer_norm_rms_epsilon", num(c, "rms_norm_eps", c->a->gemma ? 1e-6 : NAN));
    c->sliding = arena_new(&c->f->arena, (size_t)c->layers * sizeof *c->sliding, c->err);
    c->ok = c->ok && c->sliding;
}

static cJSON *generation_config(const struct model_files *f)
{
    struct text path = { 0 };
    text_add(&path, f->metadata_path, (size_t)(path_base(f->metadata_path) - f->metadata_path));
    text_puts(&path, "generation_config.json");
    cJSON *json = text_ok(&path, NULL) && file_exists(text_str(&path)) ? json_parse_file(text_str(&path), 1 << 20, NULL) : NULL;
    text_free(&path);
    return json;
}

static bool find_arch(struct converter *c)
{
    const cJSON *type = json_get(c->text, "model_type") ? json_get(c->text, "model_type") : json_get(c->root, "model_type");
    if (!cJSON_IsString(type))
        return fail(c->err, STATUS_FORMAT, "%s: no model_type", c->f->metadata_path);
    c->a = arch_of_hf(type->valuestring);
    if (!c->a)
        return fail(c->err, STATUS_UNSUPPORTED, "%s: model_type %s is not one this program runs (see qdelta list models)", c->f->metadata_path,
                    type->valuestring);
    return kv_add_str(c->f, "general.architecture", c->a->name, c->err);
}

/* Multimodal configs carry the flag twice and may differ: the outer one holds where the weights have no head of their own.  A head
 * quantized by itself is no copy of the embedding, whatever the flag says. */
static bool tied_output(const struct converter *c)
{
    bool head = false;
    for (size_t i = 0; i < c->f->n_raw; i++)
        head |= strstr(c->f->raw[i].name, "lm_head.") != NULL;
    if (files_raw(c->f, "lm_head.weight_scale"))
        return false;
    return truth(c, "tie_word_embeddings", c->a->gemma || is_arch(c, "smollm3")) || (!head && cJSON_IsTrue(json_get(c->root, "tie_word_embeddings")));
}

bool hf_metadata(struct model_files *f, const struct arch **a, struct error *err)
{
    struct converter c = { .f = f, .root = f->config, .text = json_get(f->config, "text_config"), .err = err, .ok = true };
    c.text = c.text ? c.text : c.root;
    if (!cJSON_IsObject(c.text))
        return fail(err, STATUS_FORMAT, "%s: not a JSON object", f->metadata_path);
    if (!find_arch(&c))
        return false;
    cJSON *generation = generation_config(f);
    f->tied = tied_output(&c);
    f->k_eq_v = truth(&c, "attention_k_eq_v", false);
    check_unsupported(&c);
    put_sizes(&c);
    if (c.ok)
        sliding_layers(&c);
    void (*const steps[])(struct converter *) = { put_sliding, put_heads, put_ffn, put_experts, put_rope, put_softcaps, put_scale };
    for (size_t i = 0; c.ok && i < ARRAY_LEN(steps); i++)
        steps[i](&c);
    if (c.ok)
        put_ids(&c, generation);
    cJSON_Delete(generation);
    *a = c.a;
    return c.ok;
}
