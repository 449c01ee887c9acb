"""Compares the model of this recipe with transformers' Gemma4ForCausalLM in float32 and records golden logits.

    python check_hf.py FOLDER TEXT GOLDEN_PREFIX

Writes GOLDEN_PREFIX.ids.i32 (2 x 64 ids, each row with <bos>) and GOLDEN_PREFIX.logits.f32 as transformers computes them.
"""
import sys

import numpy as np
import torch
from transformers import AutoTokenizer, Gemma4ForCausalLM

import model as gemma
from tokenizer import BOS, Encoder


def main(folder, text_path, prefix):
    text = open(text_path, encoding="utf-8").read()
    encode = Encoder(folder + "/tokenizer.json")
    encode.check(text)
    assert AutoTokenizer.from_pretrained(folder)(text[:2000]).input_ids == [BOS] + encode(text[:2000])
    ids = encode(text)
    theirs = Gemma4ForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    ours = gemma.load(folder, "cpu").eval()
    with torch.no_grad():
        for time in (64, 200):      # the longer one leaves the window
            rows = torch.tensor([[BOS] + ids[at:at + time - 1] for at in (0, 3000)])
            a, b = theirs(rows).logits, ours(rows)
            print(f"{time} tokens: largest difference of logits {(a - b).abs().max().item():.2e}, of magnitude {a.abs().max().item():.1f}")
            assert (a - b).abs().max() < 1e-4
            if time == 64:
                rows.numpy().astype(np.int32).tofile(prefix + ".ids.i32")
                a.numpy().astype(np.float32).tofile(prefix + ".logits.f32")


if __name__ == "__main__":
    main(*sys.argv[1:4])
