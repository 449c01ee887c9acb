/* hf_names.c - GGUF tensor names to Hugging Face ones (models.md 3.3). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hf.h"

enum of { ANY, PLAIN_NORMS, SANDWICH, GEMMA4, QWEN_MOE };

static const struct {
    const char *gguf, *hf;
    enum of of;
} names[] = {
    { "token_embd.weight", "embed_tokens.weight", ANY },
    { "per_layer_token_embd.weight", "embed_tokens_per_layer.weight", ANY },
    { "per_layer_model_proj.weight", "per_layer_model_projection.weight", ANY },
    { "per_layer_proj_norm.weight", "per_layer_projection_norm.weight", ANY },
    { "output_norm.weight", "norm.weight", ANY },
    { "attn_norm.weight", "input_layernorm.weight", ANY },
    { "attn_q.weight", "self_attn.q_proj.weight", ANY },
    { "attn_k.weight", "self_attn.k_proj.weight", ANY },
    { "attn_v.weight", "self_attn.v_proj.weight", ANY },
    { "attn_q.bias", "self_attn.q_proj.bias", ANY },
    { "attn_k.bias", "self_attn.k_proj.bias", ANY },
    { "attn_v.bias", "self_attn.v_proj.bias", ANY },
    { "attn_output.weight", "self_attn.o_proj.weight", ANY },
    { "attn_q_norm.weight", "self_attn.q_norm.weight", ANY },
    { "attn_k_norm.weight", "self_attn.k_norm.weight", ANY },
    { "post_attention_norm.weight", "post_attention_layernorm.weight", ANY },
    { "ffn_norm.weight", "pre_feedforward_layernorm.weight", SANDWICH },
    { "ffn_norm.weight", "post_attention_layernorm.weight", PLAIN_NORMS },
    { "post_ffw_norm.weight", "post_feedforward_layernorm.weight", ANY },
    { "ffn_gate.weight", "mlp.gate_proj.weight", ANY },
    { "ffn_up.weight", "mlp.up_proj.weight", ANY },
    { "ffn_down.weight", "mlp.down_proj.weight", ANY },
    { "ffn_gate_inp.weight", "router.proj.weight", GEMMA4 },
    { "ffn_gate_inp.scale", "router.scale", GEMMA4 },
    { "ffn_down_exps.scale", "router.per_expert_scale", GEMMA4 },
    { "ffn_gate_up_exps.weight", "experts.gate_up_proj", GEMMA4 },
    { "ffn_gate_exps.weight", "experts.gate_proj", GEMMA4 },
    { "ffn_up_exps.weight", "experts.up_proj", GEMMA4 },
    { "ffn_down_exps.weight", "experts.down_proj", GEMMA4 },
    { "pre_ffw_norm_2.weight", "pre_feedforward_layernorm_2.weight", ANY },
    { "post_ffw_norm_1.weight", "post_feedforward_layernorm_1.weight", ANY },
    { "post_ffw_norm_2.weight", "post_feedforward_layernorm_2.weight", ANY },
    { "ffn_gate_inp.weight", "mlp.gate.weight", QWEN_MOE },
    { "ffn_gate_exps.weight", "mlp.experts.%d.gate_proj.weight", QWEN_MOE },
    { "ffn_up_exps.weight", "mlp.experts.%d.up_proj.weight", QWEN_MOE },
    { "ffn_down_exps.weight", "mlp.experts.%d.down_proj.weight", QWEN_MOE },
    { "inp_gate.weight", "per_layer_input_gate.weight", ANY },
    { "proj.weight", "per_layer_projection.weight", ANY },
    { "post_norm.weight", "post_per_layer_input_norm.weight", ANY },
    { "layer_output_scale.weight", "layer_scalar", ANY },
};

static bool fits(const struct model *m, enum of of)
{
    bool gemma4 = strcmp(m->config.arch, "gemma4") == 0;
    switch (of) {
    case ANY: return true;
    case PLAIN_NORMS: return !m->config.sandwich_norms;
    case SANDWICH: return m->config.sandwich_norms;
    case GEMMA4: return gemma4;
    case QWEN_MOE: return !gemma4;
    }
    return false;
}

static const char *find(const struct model *m, const char *suffix)
{
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(names[i].gguf, suffix) == 0 && fits(m, names[i].of))
            return names[i].hf;
    return NULL;
}

static const char *suffix_of(const char *gguf)
{
    const char *dot = str_starts(gguf, "blk.") ? strchr(gguf + 4, '.') : NULL;
    return dot ? dot + 1 : gguf;
}

bool hf_expert_apart(const struct model *m, const char *gguf)
{
    const char *hf = find(m, suffix_of(gguf));
    return hf && strstr(hf, "%d");
}

bool hf_name(const struct model *m, const char *gguf, int expert, char *out, size_t size)
{
    int layer = tensor_layer(gguf);
    if (strcmp(gguf, "output.weight") == 0)
        return snprintf(out, size, "lm_head.weight") > 0;
    const char *hf = find(m, suffix_of(gguf)), *number = hf ? strstr(hf, "%d") : NULL;
    char rest[128];
    if (!hf)
        return false;
    if (number)
        snprintf(rest, sizeof rest, "%.*s%d%s", (int)(number - hf), hf, expert, number + 2);
    else
        snprintf(rest, sizeof rest, "%s", hf);
    if (layer < 0)
        snprintf(out, size, "model.%s", rest);
    else
        snprintf(out, size, "model.layers.%d.%s", layer, rest);
    return true;
}
