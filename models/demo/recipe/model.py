"""The dense Gemma 4 text model, small enough to read in one go, and its Hugging Face folder.

Follows transformers' Gemma4ForCausalLM: embeddings times sqrt(width), norms before and after
each block, weighted norms of queries and keys, a weightless norm of values, attention scale 1,
rotation of a quarter of the pairs on full layers, values taken from the key projection there
(attention_k_eq_v), a scalar at the end of each layer, tied output with softcap.
Module names are the tensor names of the published files. check_hf.py compares logits.
"""
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

import q4
from tokenizer import BOS, EOS, PAD, TOKENIZER_CONFIG, VOCAB_SIZE

WIDTH, FFN, HEADS, EPS, SOFTCAP, WINDOW = 256, 512, 4, 1e-6, 30.0, 64
LAYERS = ("sliding", "sliding", "full", "sliding", "sliding", "full")
HEAD_DIM = {"sliding": 64, "full": 128}
KV_HEADS = {"sliding": 2, "full": 1}
THETA = {"sliding": 10_000.0, "full": 1_000_000.0}
ROTATED = {"sliding": 1.0, "full": 0.25}
MAX_POSITIONS = 1024


class Norm(nn.Module):
    def __init__(self, size, value=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((size,), value))

    def forward(self, x):
        return normalized(x, self.weight)


def normalized(x, weight=None):
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + EPS)
    return (wide if weight is None else wide * weight).to(x.dtype)


class Matrix(nn.Module):
    """A weight without bias; while `fake_quant` is set, training sees its Q4_0 image."""

    def __init__(self, rows, cols):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, cols) * cols ** -0.5)
        self.fake_quant = False

    def forward(self, x):
        weight = q4.straight_through(self.weight) if self.fake_quant else self.weight
        return F.linear(x, weight.to(x.dtype))


def rope_table(kind):
    """cos and sin [MAX_POSITIONS, head / 2]; pairs beyond the rotated share have angle 0."""
    size = HEAD_DIM[kind]
    pairs = torch.arange(size // 2, dtype=torch.float64)
    frequency = torch.where(pairs < int(ROTATED[kind] * size / 2), THETA[kind] ** (-2 * pairs / size), 0.0)
    angle = torch.outer(torch.arange(MAX_POSITIONS, dtype=torch.float64), frequency)
    return angle.cos().float(), angle.sin().float()


def rotate(x, table):
    """x [batch, heads, time, head]; element i turns with element i + head / 2."""
    cos, sin = table
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.size, self.kv = kind, HEAD_DIM[kind], KV_HEADS[kind]
        self.q_proj = Matrix(HEADS * self.size, WIDTH)
        self.k_proj = Matrix(self.kv * self.size, WIDTH)
        if kind == "sliding":
            self.v_proj = Matrix(self.kv * self.size, WIDTH)
        self.o_proj = Matrix(WIDTH, HEADS * self.size)
        # The scale of attention is 1, so the norms start where q.k has unit variance.
        self.q_norm, self.k_norm = Norm(self.size, self.size ** -0.25), Norm(self.size, self.size ** -0.25)

    def heads(self, x, count):
        return x.view(*x.shape[:2], count, self.size).transpose(1, 2)

    def forward(self, x, table, mask):
        q = rotate(self.q_norm(self.heads(self.q_proj(x), HEADS)), table)
        raw = self.heads(self.k_proj(x), self.kv)
        k = rotate(self.k_norm(raw), table)
        v = normalized(self.heads(self.v_proj(x), self.kv) if self.kind == "sliding" else raw)
        k, v = (t.repeat_interleave(HEADS // self.kv, dim=1) for t in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=1.0)
        return self.o_proj(mixed.transpose(1, 2).reshape(*x.shape[:2], HEADS * self.size))


class FeedForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = Matrix(FFN, WIDTH), Matrix(FFN, WIDTH), Matrix(WIDTH, FFN)

    def forward(self, x):
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.input_layernorm, self.self_attn, self.post_attention_layernorm = Norm(WIDTH), Attention(kind), Norm(WIDTH)
        self.pre_feedforward_layernorm, self.mlp, self.post_feedforward_layernorm = Norm(WIDTH), FeedForward(), Norm(WIDTH)
        self.layer_scalar = nn.Parameter(torch.ones(1))

    def forward(self, x, table, mask):
        x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), table, mask))
        x = x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))
        return x * self.layer_scalar.to(x.dtype)


class Embedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(VOCAB_SIZE, WIDTH) * WIDTH ** -0.5)


class Gemma(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = Embedding()
        self.layers = nn.ModuleList(Layer(kind) for kind in LAYERS)
        self.norm = Norm(WIDTH)
        for kind in HEAD_DIM:
            for name, values in zip(("cos", "sin"), rope_table(kind)):
                self.register_buffer(f"{kind}_{name}", values, persistent=False)
        self.masks = {}

    def window_mask(self, time, device):
        """A token sees itself and WINDOW - 1 predecessors; full layers use plain causal attention."""
        if (time, device) not in self.masks:
            p = torch.arange(time, device=device)
            distance = p[:, None] - p[None, :]
            self.masks[time, device] = (distance >= 0) & (distance < WINDOW)
        return self.masks[time, device]

    def hidden(self, ids, dtype=torch.float32):
        time = ids.shape[1]
        x = (F.embedding(ids, self.embed_tokens.weight) * math.sqrt(WIDTH)).to(dtype)
        tables = {k: (getattr(self, k + "_cos")[:time], getattr(self, k + "_sin")[:time]) for k in HEAD_DIM}
        mask = {"sliding": self.window_mask(time, ids.device), "full": None}
        for layer, kind in zip(self.layers, LAYERS):
            x = layer(x, tables[kind], mask[kind])
        return self.norm(x)

    def logits(self, hidden):
        return SOFTCAP * torch.tanh(F.linear(hidden, self.embed_tokens.weight.to(hidden.dtype)).float() / SOFTCAP)

    def forward(self, ids):
        return self.logits(self.hidden(ids))

    def matrices(self):
        """(name, module) of everything that becomes Q4_0."""
        return [(name, module) for name, module in self.named_modules() if isinstance(module, Matrix)]

    def set_fake_quant(self, on):
        for _, module in self.matrices():
            module.fake_quant = on


def config_json():
    full = [i for i, kind in enumerate(LAYERS) if kind == "full"]
    return {
        "architectures": ["Gemma4ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "attention_k_eq_v": True, "bos_token_id": BOS, "dtype": "bfloat16", "enable_moe_block": False,
        "eos_token_id": EOS, "final_logit_softcapping": SOFTCAP, "head_dim": HEAD_DIM["sliding"],
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": WIDTH, "hidden_size_per_layer_input": 0,
        "initializer_range": 0.02, "intermediate_size": FFN,
        "layer_types": [kind + "_attention" for kind in LAYERS], "max_position_embeddings": MAX_POSITIONS,
        "model_type": "gemma4_text", "moe_intermediate_size": None, "num_attention_heads": HEADS,
        "num_experts": None, "num_hidden_layers": len(LAYERS), "num_key_value_heads": KV_HEADS["sliding"],
        "num_kv_shared_layers": 0, "pad_token_id": PAD,
        "per_layer_config": {str(i): {"head_dim": HEAD_DIM["full"], "num_key_value_heads": KV_HEADS["full"]} for i in full},
        "rms_norm_eps": EPS,
        "rope_parameters": {
            "full_attention": {"partial_rotary_factor": ROTATED["full"], "rope_theta": THETA["full"], "rope_type": "proportional"},
            "sliding_attention": {"rope_theta": THETA["sliding"], "rope_type": "default"}},
        "sliding_window": WINDOW, "tie_word_embeddings": True, "top_k_experts": None, "transformers_version": "5.17.0",
        "use_bidirectional_attention": None, "use_cache": True, "use_double_wide_mlp": False,
        "vocab_size": VOCAB_SIZE, "vocab_size_per_layer_input": VOCAB_SIZE,
    }


def save(tensors, folder, tokenizer):
    """A Hugging Face folder of bf16 tensors, named as in `Gemma.state_dict()`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    named = {"model." + name: t.detach().cpu().to(torch.bfloat16).contiguous() for name, t in sorted(tensors.items())}
    save_file(named, str(folder / "model.safetensors"), metadata={"format": "pt"})
    for name, content in (("config.json", config_json()), ("tokenizer.json", tokenizer), ("tokenizer_config.json", TOKENIZER_CONFIG),
                          ("generation_config.json", {"_from_model_config": True, "bos_token_id": BOS, "eos_token_id": EOS,
                                                      "pad_token_id": PAD, "do_sample": False, "transformers_version": "5.17.0"})):
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load(folder, device):
    """The model of a folder, its bf16 weights widened to float32."""
    tensors = load_file(str(Path(folder) / "model.safetensors"))
    model = Gemma()
    model.load_state_dict({name.removeprefix("model."): t.float() for name, t in tensors.items()})
    return model.to(device)
