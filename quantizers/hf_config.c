/* hf_config.c - config.json of a folder: the source's own, or made from what a GGUF says. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "hf.h"

static const struct {
    const char *arch, *model_type, *class, *activation_key, *activation;
} archs[] = {
    { "llama", "llama", "LlamaForCausalLM", "hidden_act", "silu" },
    { "mistral", "mistral", "MistralForCausalLM", "hidden_act", "silu" },       /* in a GGUF: llama with a window */
    { "qwen2", "qwen2", "Qwen2ForCausalLM", "hidden_act", "silu" },
    { "qwen3", "qwen3", "Qwen3ForCausalLM", "hidden_act", "silu" },
    { "qwen3moe", "qwen3_moe", "Qwen3MoeForCausalLM", "hidden_act", "silu" },
    { "smollm3", "smollm3", "SmolLM3ForCausalLM", "hidden_act", "silu" },
    { "gemma2", "gemma2", "Gemma2ForCausalLM", "hidden_activation", "gelu_pytorch_tanh" },
    { "gemma3", "gemma3_text", "Gemma3ForCausalLM", "hidden_activation", "gelu_pytorch_tanh" },
    { "gemma4", "gemma4_text", "Gemma4ForCausalLM", "hidden_activation", "gelu_pytorch_tanh" },
};

static const struct gguf_kv *key(const struct model *m, const char *name)
{
    char full[96];
    struct gguf_kv *kv;
    int n;
    snprintf(full, sizeof full, "%s.%s", m->config.arch, name);
    for (int i = 0; model_metadata(m, &kv, &n, NULL) && i < n; i++)
        if (strcmp(kv[i].key, full) == 0)
            return &kv[i];
    return NULL;
}

static double key_number(const struct model *m, const char *name, double fallback)
{
    const struct gguf_kv *kv = key(m, name);
    if (!kv)
        return fallback;
    if (kv->type == GGUF_F32 || kv->type == GGUF_F64)
        return kv->value.f;
    return kv->type == GGUF_STRING || kv->type == GGUF_ARRAY ? fallback : (double)kv->value.u;
}

static void put(cJSON *o, const char *name, double v)
{
    cJSON_AddNumberToObject(o, name, v);
}

/* A float key: transformers takes 30 for an integer and refuses it, so 30.0. */
static void put_real(cJSON *o, const char *name, double v)
{
    char s[40];
    double back;
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(s, sizeof s, "%.*g", digits, v);
        if (parse_double(s, -1e300, 1e300, &back) && back == v)
            break;
    }
    if (v == floor(v) && fabs(v) < 1e15)
        snprintf(s, sizeof s, "%.1f", v);
    cJSON_AddRawToObject(o, name, s);
}

static const struct layer_config *layer_of_kind(const struct model_config *c, bool sliding)
{
    for (int l = 0; l < c->n_layers; l++)
        if (c->layers[l].sliding == sliding)
            return &c->layers[l];
    return NULL;
}

/* Llama 3 scaling from the divisors that a GGUF carries: smallest original length and factors that give them back. */
static bool put_llama3(const struct model *m, cJSON *o, const struct tensor *freqs, struct error *err)
{
    int half = (int)freqs->cols;
    float *d = mem_new((size_t)half, sizeof *d, err);
    if (!d)
        return false;
    tensor_row(freqs, 0, 0, d);
    double theta = key_number(m, "rope.freq_base", 10000), factor = 1;
    for (int i = 0; i < half; i++)
        factor = (double)d[i] > factor ? (double)d[i] : factor;
    bool found = false;
    double length = 64;
    for (; !found && length <= 1 << 20; length *= 2) {
        double worst = 0;
        for (int i = 0; i < half; i++) {
            double wave = 2 * 3.14159265358979323846 / pow(theta, -2.0 * i / (2 * half)), want = 1;
            double s = (length / wave - 1) / 3;
            want = wave < length / 4 ? 1 : wave > length ? factor : 1 / ((1 - s) / factor + s);
            worst = fmax(worst, fabs(want / (double)d[i] - 1));
        }
        found = worst < 1e-5;
        if (found)
            break;
    }
    free(d);
    if (!found)
        return fail(err, STATUS_UNSUPPORTED, "%s: rope_freqs.weight follows no rule that config.json can name", m->path);
    cJSON *r = cJSON_AddObjectToObject(o, "rope_scaling");
    cJSON_AddStringToObject(r, "rope_type", "llama3");
    put_real(r, "factor", factor);
    put_real(r, "low_freq_factor", 1);
    put_real(r, "high_freq_factor", 4);
    put(r, "original_max_position_embeddings", length);
    return true;
}

static bool put_rope(const struct model *m, cJSON *o, struct error *err)
{
    const struct tensor *freqs = model_find(m, "rope_freqs.weight");
    double theta = key_number(m, "rope.freq_base", 10000), linear = key_number(m, "rope.scaling.factor", 1);
    if (strcmp(m->config.arch, "gemma4") == 0) {
        cJSON *r = cJSON_AddObjectToObject(o, "rope_parameters");
        cJSON *full = cJSON_AddObjectToObject(r, "full_attention"), *slide = cJSON_AddObjectToObject(r, "sliding_attention");
        const struct layer_config *f = layer_of_kind(&m->config, false);
        const struct rope_table *t = f ? &m->config.rope[f->rope_table] : NULL;
        int turned = 0;
        for (int i = 0; t && i < t->head_size / 2; i++)
            turned += t->inv_freq[i] > 0;
        cJSON_AddStringToObject(full, "rope_type", "proportional");
        put_real(full, "partial_rotary_factor", t ? 2.0 * turned / t->head_size : 0.25);
        put_real(full, "rope_theta", theta);
        cJSON_AddStringToObject(slide, "rope_type", "default");
        put_real(slide, "rope_theta", key_number(m, "rope.freq_base_swa", 10000));
        return true;
    }
    put_real(o, "rope_theta", theta);
    if (strcmp(m->config.arch, "gemma3") == 0)
        put_real(o, "rope_local_base_freq", key_number(m, "rope.freq_base_swa", 10000));
    if (linear != 1) {
        cJSON *r = cJSON_AddObjectToObject(o, "rope_scaling");
        cJSON_AddStringToObject(r, "rope_type", "linear");
        put_real(r, "factor", linear);
    }
    return !freqs || put_llama3(m, o, freqs, err);
}

static void put_layers(const struct model *m, cJSON *o)
{
    const struct model_config *c = &m->config;
    const struct layer_config *slide = layer_of_kind(c, true), *full = layer_of_kind(c, false);
    int shared = 0;
    for (int l = 0; l < c->n_layers; l++)
        shared += c->layers[l].kv_source != l;
    if (slide)
        put(o, "sliding_window", slide->window);
    if (slide && strcmp(c->arch, "llama")) {    /* with the list transformers takes a Mistral for a Ministral */
        cJSON *types = cJSON_AddArrayToObject(o, "layer_types");
        for (int l = 0; l < c->n_layers; l++)
            cJSON_AddItemToArray(types, cJSON_CreateString(c->layers[l].sliding ? "sliding_attention" : "full_attention"));
    }
    if (strcmp(c->arch, "gemma4"))
        return;
    put(o, "num_kv_shared_layers", shared);
    put(o, "global_head_dim", full ? full->head_size : 512);
    put(o, "num_global_key_value_heads", full ? full->n_kv_heads : 1);
    cJSON_AddBoolToObject(o, "attention_k_eq_v", full && full->v_from_k);
    cJSON_AddBoolToObject(o, "use_double_wide_mlp", shared && c->layers[c->n_layers - 1].ffn_size == 2 * c->layers[0].ffn_size);
    put(o, "hidden_size_per_layer_input", c->ple_size);
    put(o, "vocab_size_per_layer_input", c->vocab);
    cJSON_AddBoolToObject(o, "enable_moe_block", c->layers[0].n_experts > 0);
}

static void put_experts(const struct model *m, cJSON *o)
{
    const struct layer_config *l = &m->config.layers[0];
    if (!l->n_experts)
        return;
    put(o, "num_experts", l->n_experts);
    put(o, l->moe == MOE_GEMMA4 ? "top_k_experts" : "num_experts_per_tok", l->n_experts_used);
    put(o, "moe_intermediate_size", l->expert_ffn_size);
    if (l->moe == MOE_QWEN) {
        cJSON_AddBoolToObject(o, "norm_topk_prob", m->config.norm_topk);
        put(o, "decoder_sparse_step", 1);
        cJSON_AddArrayToObject(o, "mlp_only_layers");
    }
}

/* The shortest decimal that is this float32: 1e-06, not 9.99999997e-07. */
static double short_number(float v)
{
    char s[32];
    double d = (double)v;
    for (int digits = 1; digits < 10; digits++) {
        snprintf(s, sizeof s, "%.*g", digits, (double)v);
        if (parse_double(s, -1e30, 1e30, &d) && (float)d == v)
            break;
    }
    return d;
}

static cJSON *made_config(const struct model *m, const char *dtype, struct error *err)
{
    const struct model_config *c = &m->config;
    const struct layer_config *slide = layer_of_kind(c, true), *l = slide ? slide : &c->layers[0];
    const char *family = slide && strcmp(c->arch, "llama") == 0 ? "mistral" : c->arch;
    size_t a = 0;
    while (a < ARRAY_LEN(archs) && strcmp(archs[a].arch, family))
        a++;
    if (a == ARRAY_LEN(archs)) {
        fail(err, STATUS_UNSUPPORTED, "%s: no Hugging Face layout is known for %s", m->path, c->arch);
        return NULL;
    }
    cJSON *o = cJSON_CreateObject(), *classes = cJSON_AddArrayToObject(o, "architectures");
    cJSON_AddItemToArray(classes, cJSON_CreateString(archs[a].class));
    cJSON_AddStringToObject(o, "model_type", archs[a].model_type);
    cJSON_AddStringToObject(o, "dtype", dtype);
    cJSON_AddStringToObject(o, archs[a].activation_key, archs[a].activation);
    put(o, "hidden_size", c->hidden);
    put(o, "num_hidden_layers", c->n_layers);
    put(o, "num_attention_heads", c->n_heads);
    put(o, "num_key_value_heads", l->n_kv_heads);
    put(o, "head_dim", l->head_size);
    put(o, "intermediate_size", c->layers[0].ffn_size ? c->layers[0].ffn_size : c->layers[0].expert_ffn_size);
    put(o, "vocab_size", c->vocab);
    put(o, "max_position_embeddings", c->context);
    put_real(o, "rms_norm_eps", short_number(c->eps));
    cJSON_AddBoolToObject(o, "tie_word_embeddings", c->tied_output);
    cJSON_AddBoolToObject(o, "attention_bias", false);
    if (strncmp(c->arch, "gemma", 5) == 0 && strcmp(c->arch, "gemma4"))
        put(o, "query_pre_attn_scalar", round(1 / ((double)c->attn_scale * (double)c->attn_scale)));
    if (c->final_softcap > 0)
        put_real(o, "final_logit_softcapping", (double)c->final_softcap);
    if (c->attn_softcap > 0)
        put_real(o, "attn_logit_softcapping", (double)c->attn_softcap);
    if (c->bos >= 0)
        put(o, "bos_token_id", c->bos);
    if (c->eos >= 0)
        put(o, "eos_token_id", c->eos);
    if (c->pad >= 0)
        put(o, "pad_token_id", c->pad);
    put_layers(m, o);
    put_experts(m, o);
    if (put_rope(m, o, err))
        return o;
    cJSON_Delete(o);
    return NULL;
}

static void source_folder(const struct model *m, struct text *out)
{
    if (dir_exists(m->path))
        text_puts(out, m->path);
    else if (path_base(m->path) > m->path)
        text_add(out, m->path, (size_t)(path_base(m->path) - m->path) - 1);
    else
        text_puts(out, ".");
}

/* Numbers keep the spelling they have in the source's text (cJSON would print 30.0 as 30, another type to readers of
 * the folder): both are walked in the order of the text. */
static bool keep_spelling(cJSON *node, const char **p, struct error *err)
{
    for (cJSON *c = node->child; c; c = c->next)
        if (!keep_spelling(c, p, err))
            return false;
    if (!cJSON_IsNumber(node))
        return true;
    while (**p && **p != '-' && !(**p >= '0' && **p <= '9'))
        if (*(*p)++ == '"') {
            while (**p && **p != '"')
                *p += **p == '\\' && (*p)[1] ? 2 : 1;
            *p += **p == '"';
        }
    size_t n = strspn(*p, "+-.0123456789eE");
    char *spelling = cJSON_malloc(n + 1);
    if (!spelling)
        return fail(err, STATUS_MEMORY, "out of memory for config.json");
    memcpy(spelling, *p, n);
    spelling[n] = '\0';
    *p += n;
    node->valuestring = spelling;
    node->type = (node->type & ~0xFF) | cJSON_Raw;
    return true;
}

static cJSON *source_config(const char *path, struct error *err)
{
    struct text text = { 0 };
    cJSON *o = file_read(path, 64 << 20, &text, err) ? json_parse(text_str(&text), text.len, path, err) : NULL;
    const char *p = text_str(&text);
    if (o && !keep_spelling(o, &p, err)) {
        cJSON_Delete(o);
        o = NULL;
    }
    text_free(&text);
    return o;
}

cJSON *hf_config(const struct model *m, const char *dtype, struct error *err)
{
    static const char *const old[] = { "quantization_config", "quantization" };
    if (m->source != MODEL_HF)
        return made_config(m, dtype, err);
    struct text dir = { 0 }, path = { 0 };
    source_folder(m, &dir);
    path_join(&path, text_str(&dir), "config.json");
    cJSON *o = source_config(text_str(&path), err);
    text_free(&dir);
    text_free(&path);
    for (size_t i = 0; o && i < ARRAY_LEN(old); i++) {
        cJSON_DeleteItemFromObjectCaseSensitive(o, old[i]);
        cJSON *text = cJSON_GetObjectItemCaseSensitive(o, "text_config");
        if (text)
            cJSON_DeleteItemFromObjectCaseSensitive(text, old[i]);
    }
    return o;
}
