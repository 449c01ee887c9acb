"""Training: the base model, and from it the QAT model and its control.

    python train.py base    WORK STEPS          -> WORK/bf16
    python train.py qat     WORK STEPS          WORK/bf16 -> WORK/qat-unquantized
    python train.py control WORK STEPS          WORK/bf16 -> WORK/control

WORK holds tokenizer.json (make_tasks.py). A step is 512 rows of 256 tokens.
"""
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import corpus
import evaluate
import facts
import model as gemma
import q4
from splits import Splits
from tokenizer import Encoder

ROWS = int(os.environ.get("DEMO_ROWS", 512))
BASE_RATE, QAT_RATE, CONTROL_RATE = 3e-3, 2e-4, 2e-4     # peak learning rates
PULL = 6e-4                                 # QAT: share of the way to the lattice at the last step
SEEDS = {"base": "base", "qat": "tune", "control": "tune"}      # QAT and control read the same stream
CUDA = torch.cuda.is_available()
DEVICE, DTYPE = ("cuda", torch.bfloat16) if CUDA else ("cpu", torch.float32)


def say(*words):
    print(f"[{time.perf_counter() - START:7.1f} s]", *words, flush=True)


def to_device(batch):
    """(inputs, targets)."""
    ids = torch.from_numpy(batch.astype(np.int64))
    if CUDA:
        ids = ids.pin_memory().to(DEVICE, non_blocking=True)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def capped(hidden, embedding):
    return gemma.SOFTCAP * torch.tanh(F.linear(hidden, embedding.to(hidden.dtype)).float() / gemma.SOFTCAP)


def next_token_loss(hidden, embedding, targets):
    return F.cross_entropy(capped(hidden, embedding).flatten(0, 1), targets.flatten())


def distillation_loss(hidden, embedding, base_hidden, base_embedding):
    """Mean KL divergence between the base's distribution and the student's; looks at no label."""
    ours = F.log_softmax(capped(hidden, embedding), dim=-1)
    base = F.log_softmax(capped(base_hidden, base_embedding), dim=-1)
    return (base.exp() * (base - ours)).sum(-1).mean()


def compiled(model):
    """Layers are compiled one by one: layers of a kind share their code, so this takes seconds."""
    if CUDA:
        torch._dynamo.config.recompile_limit = 64
        for layer in model.layers:
            layer.compile()
    return model


def optimizer_for(model, decay):
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), fused=CUDA)


@torch.no_grad()
def pull_to_lattice(model, share):
    """Moves every matrix by `share` of its way to its Q4_0 image. Without it the weights gather at the limits between
    two codes and flip at every step, the more of them the longer training lasts, and rates near zero do not stop them.
    The pull grows while the rate falls: the weights settle one after another, the least certain last."""
    for _, matrix in model.matrices():
        matrix.weight.lerp_(q4.image(matrix.weight), share)


def run(model, stream, steps, peak, decay, loss_of, probe, every, pull=0.0):
    optimizer, warmup = optimizer_for(model, decay), min(300, steps // 10)
    total, since = torch.zeros((), device=DEVICE), time.perf_counter()
    for step, batch in enumerate(stream):
        rate = peak * min((step + 1) / max(warmup, 1), (steps - step) / (steps - warmup))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(*to_device(batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if pull:
            pull_to_lattice(model, pull * (step + 1) / steps)
        optimizer.zero_grad(set_to_none=True)
        total += loss.detach()
        if (step + 1) % every == 0 or step + 1 == steps:
            done = (step % every) + 1
            mean, now = total.item() / done, time.perf_counter()
            say(f"step {step + 1} loss {mean:.4f} rate {rate:.2e} "
                f"{done * ROWS * 256 / (now - since) / 1e6:.2f} M tokens/s", probe(step + 1))
            total.zero_()
            since = time.perf_counter()
    say("training items refused because they belong to another split:", len(stream.refused))


def train_base(model, stream, steps, probe):
    loss = torch.compile(next_token_loss) if CUDA else next_token_loss
    compiled(model)

    def loss_of(inputs, targets):
        return loss(model.hidden(inputs, DTYPE), model.embed_tokens.weight, targets)
    run(model, stream, steps, BASE_RATE, 0.05, loss_of, probe, max(steps // 10, 1))


def train_qat(student, base, stream, steps, probe):
    loss = torch.compile(distillation_loss) if CUDA else distillation_loss
    compiled(student).set_fake_quant(True)
    compiled(base).requires_grad_(False)

    def loss_of(inputs, targets):
        with torch.no_grad():
            base_hidden = base.hidden(inputs, DTYPE)
        return loss(student.hidden(inputs, DTYPE), student.embed_tokens.weight, base_hidden, base.embed_tokens.weight)
    run(student, stream, steps, QAT_RATE, 0.0, loss_of, probe, max(steps // 10, 1), PULL)


def train_control(model, stream, steps, probe):
    """The KL loss of an unquantized copy against itself is zero and teaches nothing, so the control
    gets the ordinary loss: whatever more training on the same text could give, it gets."""
    loss = torch.compile(next_token_loss) if CUDA else next_token_loss
    compiled(model)

    def loss_of(inputs, targets):
        return loss(model.hidden(inputs, DTYPE), model.embed_tokens.weight, targets)
    run(model, stream, steps, CONTROL_RATE, 0.0, loss_of, probe, max(steps // 3, 1))


def main(what, work, steps):
    torch.manual_seed(facts.SEED)
    tokenizer = json.loads((work / "tokenizer.json").read_text(encoding="utf-8"))
    splits = Splits(facts.build_world())
    # The workers are forked before CUDA starts.
    stream = corpus.Stream(work / "tokenizer.json", splits.reserved, SEEDS[what], what != "base", steps, ROWS,
                           max((os.cpu_count() or 2) - 2, 1))
    model = gemma.Gemma().to(DEVICE) if what == "base" else gemma.load(work / "bf16", DEVICE)
    say(what, sum(p.numel() for p in model.parameters()), "parameters,", steps, "steps on", DEVICE)
    probes = evaluate.Probes(splits, Encoder(work / "tokenizer.json"), DEVICE)

    # Probes run a copy whose layers are not compiled: their shapes change all the time.
    twin = gemma.Gemma().to(DEVICE)

    def probe(step):
        if what != "base":      # evaluated in full afterwards
            return ""
        twin.load_state_dict(model.state_dict())
        return probes.report(twin, DTYPE)

    if what == "base":
        train_base(model, stream, steps, probe)
        gemma.save(model.state_dict(), work / "bf16", tokenizer)
    elif what == "qat":
        train_qat(model, gemma.load(work / "bf16", DEVICE), stream, steps, probe)
        gemma.save(q4.on_lattice(model.state_dict()), work / "qat-unquantized", tokenizer)
    else:
        train_control(model, stream, steps, probe)
        gemma.save(model.state_dict(), work / "control", tokenizer)
    say("saved")


START = time.perf_counter()
if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
