/* layout.c - which tensors a config calls for, with their shapes and both spellings of their names.
 *
 * To add a tensor: a row here; the readers, the shape rows and the writers of names follow the table. */
#include "files.h"

#include <stdlib.h>

enum dim { ONE, VOCAB, HIDDEN, Q, KV, HEAD, FFN, PLE, PLE_ALL, EXPERTS, EXPERT_FFN, EXPERT_FFN_2, HEAD_HALF };

enum {                          /* conditions; a row applies when all of its bits hold */
    UNTIED = 1 << 0, HAS_PLE = 1 << 1, OWN_KV = 1 << 2, OWN_V = 1 << 3, BIAS = 1 << 4, QK_NORM = 1 << 5, SANDWICH = 1 << 6, PLAIN = 1 << 7,
    DENSE = 1 << 8, MOE = 1 << 9, MOE_G4 = 1 << 10, MOE_Q = 1 << 11, FUSED = 1 << 12, SPLIT = 1 << 13, SCALAR = 1 << 14, FREQS = 1 << 15,
};

struct row {
    const char *gguf, *hf;
    enum dim rows, cols, mats;
    int when;
    bool norm, per_expert;
};

static const struct row global_rows[] = {
    { "token_embd.weight", "embed_tokens.weight", VOCAB, HIDDEN, ONE, 0, false, false },
    { "per_layer_token_embd.weight", "embed_tokens_per_layer.weight", VOCAB, PLE_ALL, ONE, HAS_PLE, false, false },
    { "per_layer_model_proj.weight", "per_layer_model_projection.weight", PLE_ALL, HIDDEN, ONE, HAS_PLE, false, false },
    { "per_layer_proj_norm.weight", "per_layer_projection_norm.weight", ONE, PLE, ONE, HAS_PLE, true, false },
    { "rope_freqs.weight", "", ONE, HEAD_HALF, ONE, FREQS, false, false },
    { "output_norm.weight", "norm.weight", ONE, HIDDEN, ONE, 0, true, false },
    { "output.weight", "lm_head.weight", VOCAB, HIDDEN, ONE, UNTIED, false, false },
};

static const struct row layer_rows[] = {
    { "attn_norm.weight", "input_layernorm.weight", ONE, HIDDEN, ONE, 0, true, false },
    { "attn_q.weight", "self_attn.q_proj.weight", Q, HIDDEN, ONE, 0, false, false },
    { "attn_k.weight", "self_attn.k_proj.weight", KV, HIDDEN, ONE, OWN_KV, false, false },
    { "attn_v.weight", "self_attn.v_proj.weight", KV, HIDDEN, ONE, OWN_V, false, false },
    { "attn_q.bias", "self_attn.q_proj.bias", ONE, Q, ONE, BIAS, false, false },
    { "attn_k.bias", "self_attn.k_proj.bias", ONE, KV, ONE, BIAS | OWN_KV, false, false },
    { "attn_v.bias", "self_attn.v_proj.bias", ONE, KV, ONE, BIAS | OWN_V, false, false },
    { "attn_output.weight", "self_attn.o_proj.weight", HIDDEN, Q, ONE, 0, false, false },
    { "attn_q_norm.weight", "self_attn.q_norm.weight", ONE, HEAD, ONE, QK_NORM, true, false },
    { "attn_k_norm.weight", "self_attn.k_norm.weight", ONE, HEAD, ONE, QK_NORM | OWN_KV, true, false },
    { "post_attention_norm.weight", "post_attention_layernorm.weight", ONE, HIDDEN, ONE, SANDWICH, true, false },
    { "ffn_norm.weight", "pre_feedforward_layernorm.weight", ONE, HIDDEN, ONE, SANDWICH, true, false },
    { "ffn_norm.weight", "post_attention_layernorm.weight", ONE, HIDDEN, ONE, PLAIN, true, false },
    { "ffn_gate.weight", "mlp.gate_proj.weight", FFN, HIDDEN, ONE, DENSE, false, false },
    { "ffn_up.weight", "mlp.up_proj.weight", FFN, HIDDEN, ONE, DENSE, false, false },
    { "ffn_down.weight", "mlp.down_proj.weight", HIDDEN, FFN, ONE, DENSE, false, false },
    { "post_ffw_norm.weight", "post_feedforward_layernorm.weight", ONE, HIDDEN, ONE, SANDWICH, true, false },
    { "ffn_gate_inp.weight", "router.proj.weight", EXPERTS, HIDDEN, ONE, MOE_G4, false, false },
    { "ffn_gate_inp.scale", "router.scale", ONE, HIDDEN, ONE, MOE_G4, false, false },
    { "ffn_down_exps.scale", "router.per_expert_scale", ONE, EXPERTS, ONE, MOE_G4, false, false },
    { "ffn_gate_up_exps.weight", "experts.gate_up_proj", EXPERT_FFN_2, HIDDEN, EXPERTS, MOE_G4 | FUSED, false, false },
    { "ffn_gate_exps.weight", "experts.gate_proj", EXPERT_FFN, HIDDEN, EXPERTS, MOE_G4 | SPLIT, false, false },
    { "ffn_up_exps.weight", "experts.up_proj", EXPERT_FFN, HIDDEN, EXPERTS, MOE_G4 | SPLIT, false, false },
    { "ffn_down_exps.weight", "experts.down_proj", HIDDEN, EXPERT_FFN, EXPERTS, MOE_G4, false, false },
    { "pre_ffw_norm_2.weight", "pre_feedforward_layernorm_2.weight", ONE, HIDDEN, ONE, MOE_G4, true, false },
    { "post_ffw_norm_1.weight", "post_feedforward_layernorm_1.weight", ONE, HIDDEN, ONE, MOE_G4, true, false },
    { "post_ffw_norm_2.weight", "post_feedforward_layernorm_2.weight", ONE, HIDDEN, ONE, MOE_G4, true, false },
    { "ffn_gate_inp.weight", "mlp.gate.weight", EXPERTS, HIDDEN, ONE, MOE_Q, false, false },
    { "ffn_gate_exps.weight", "mlp.experts.%d.gate_proj.weight", EXPERT_FFN, HIDDEN, EXPERTS, MOE_Q, false, true },
    { "ffn_up_exps.weight", "mlp.experts.%d.up_proj.weight", EXPERT_FFN, HIDDEN, EXPERTS, MOE_Q, false, true },
    { "ffn_down_exps.weight", "mlp.experts.%d.down_proj.weight", HIDDEN, EXPERT_FFN, EXPERTS, MOE_Q, false, true },
    { "inp_gate.weight", "per_layer_input_gate.weight", PLE, HIDDEN, ONE, HAS_PLE, false, false },
    { "proj.weight", "per_layer_projection.weight", HIDDEN, PLE, ONE, HAS_PLE, false, false },
    { "post_norm.weight", "post_per_layer_input_norm.weight", ONE, HIDDEN, ONE, HAS_PLE, true, false },
    { "layer_output_scale.weight", "layer_scalar", ONE, ONE, ONE, SCALAR, false, false },
};

static int global_conditions(const struct model_config *c, int flags)
{
    return (c->tied_output ? 0 : UNTIED) | (c->ple_size ? HAS_PLE : 0) | (c->qkv_bias ? BIAS : 0) | (c->qk_norm ? QK_NORM : 0) |
           (c->sandwich_norms ? SANDWICH : PLAIN) | (c->layer_scale ? SCALAR : 0) | (flags & LAYOUT_SPLIT_EXPERTS ? SPLIT : FUSED) |
           (flags & LAYOUT_ROPE_FREQS ? FREQS : 0);
}

static int layer_conditions(const struct model_config *c, int i)
{
    const struct layer_config *l = &c->layers[i];
    bool own = l->kv_source == i;
    return (own ? OWN_KV : 0) | (own && !l->v_from_k ? OWN_V : 0) | (l->ffn_size ? DENSE : 0) | (l->moe ? MOE : 0) |
           (l->moe == MOE_GEMMA4 ? MOE_G4 : 0) | (l->moe == MOE_QWEN ? MOE_Q : 0);
}

/* rope_freqs belongs to the full layers; the last layer is one in every architecture that has the tensor. */
static int64_t dim_size(const struct model_config *c, const struct layer_config *l, enum dim d)
{
    switch (d) {
    case ONE: return 1;
    case VOCAB: return c->vocab;
    case HIDDEN: return c->hidden;
    case PLE: return c->ple_size;
    case PLE_ALL: return (int64_t)c->ple_size * c->n_layers;
    case Q: return (int64_t)c->n_heads * l->head_size;
    case KV: return (int64_t)l->n_kv_heads * l->head_size;
    case HEAD: return l->head_size;
    case HEAD_HALF: return l->head_size / 2;
    case FFN: return l->ffn_size;
    case EXPERTS: return l->n_experts;
    case EXPERT_FFN: return l->expert_ffn_size;
    case EXPERT_FFN_2: return 2 * (int64_t)l->expert_ffn_size;
    }
    return 0;
}

static const struct layer_config *a_full_layer(const struct model_config *c)
{
    for (int i = c->n_layers - 1; i >= 0; i--)
        if (!c->layers[i].sliding)
            return &c->layers[i];
    return &c->layers[0];
}

static void fill_slot(struct slot *s, const struct model_config *c, const struct row *r, int layer)
{
    const struct layer_config *l = layer < 0 ? a_full_layer(c) : &c->layers[layer];
    if (layer < 0) {
        snprintf(s->name, sizeof s->name, "%s", r->gguf);
        snprintf(s->hf, sizeof s->hf, "%s", r->hf);
    } else {
        snprintf(s->name, sizeof s->name, "blk.%d.%s", layer, r->gguf);
        snprintf(s->hf, sizeof s->hf, "layers.%d.%s", layer, r->hf);
    }
    s->rows = dim_size(c, l, r->rows);
    s->cols = dim_size(c, l, r->cols);
    s->mats = dim_size(c, l, r->mats);
    s->norm = r->norm;
    s->per_expert = r->per_expert;
}

bool layout_build(const struct model_config *c, int flags, struct slot **out, size_t *n, struct error *err)
{
    size_t most = ARRAY_LEN(global_rows) + (size_t)c->n_layers * ARRAY_LEN(layer_rows);
    int global = global_conditions(c, flags);
    struct slot *s = mem_new(most, sizeof *s, err);
    if (!s)
        return false;
    *n = 0;
    for (size_t r = 0; r < ARRAY_LEN(global_rows); r++)
        if ((global_rows[r].when & global) == global_rows[r].when)
            fill_slot(&s[(*n)++], c, &global_rows[r], -1);
    for (int i = 0; i < c->n_layers; i++) {
        int when = global | layer_conditions(c, i);
        for (size_t r = 0; r < ARRAY_LEN(layer_rows); r++)
            if ((layer_rows[r].when & when) == layer_rows[r].when)
                fill_slot(&s[(*n)++], c, &layer_rows[r], i);
    }
    *out = s;
    return true;
}

bool layout_tolerates(const struct model_config *c, const char *gguf_name)
{
    static const char *const borrowed[] = { "attn_k.weight", "attn_v.weight", "attn_k_norm.weight" };
    int layer, at = 0;
    if (sscanf(gguf_name, "blk.%d.%n", &layer, &at) != 1 || !at || layer < 0 || layer >= c->n_layers || c->layers[layer].kv_source == layer)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(borrowed); i++)
        if (!strcmp(gguf_name + at, borrowed[i]))
            return true;
    return false;
}
