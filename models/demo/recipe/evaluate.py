"""Scores of models on the demonstration tasks, in float32, with paired counts against the first.

    python evaluate.py WORK dev|test OUT.json NAME=FOLDER[:q4] ...     score the pools, write OUT.json
    python evaluate.py WORK dev|test OUT.json                          print the tables of OUT.json

`:q4` scores the folder's weights as the Q4_0 file would hold them (matrices Q4_0 by the reference rule,
embedding Q6_K). The first model is the base of pairs and of KL divergence. Test scores are printed by the
second form only: the shares of the published split are settled on `dev` before anybody looks.
"""
import json
import math
import random
import re
import sys
import time
from pathlib import Path

import torch

import facts
import model as gemma
import q4
import splits as splits_module
from tokenizer import BOS, EOS, PAD, Encoder

NEW_TOKENS = 130
CONTEXT = 256


def padded(sequences, device):
    """Right-padded ids; causal attention keeps the padding out. Multiples of 8 suit the attention kernels."""
    width = (max(map(len, sequences)) + 7) // 8 * 8
    return torch.tensor([s + [PAD] * (width - len(s)) for s in sequences], device=device)


@torch.no_grad()
def last_logits(model, sequences, device, dtype, chunk=4096):
    """Logits behind the last token of each sequence."""
    rows = []
    for at in range(0, len(sequences), chunk):
        part = sequences[at:at + chunk]
        hidden = model.hidden(padded(part, device), dtype)
        ends = torch.tensor([len(s) - 1 for s in part], device=device)
        rows.append(model.logits(hidden[torch.arange(len(part), device=device), ends]).float())
    return torch.cat(rows)


@torch.no_grad()
def choose_texts(model, encode, items, device, dtype=torch.float32):
    """Right or wrong for each item: the option text with the largest log-probability behind `Answer:`."""
    sequences, spans = [], []
    for i in items:
        prompt = [BOS] + encode(f"Question: {i[3]}\nAnswer:")
        for text in i[4]:
            tail = encode(" " + text)
            sequences.append(prompt + tail)
            spans.append((len(prompt), len(prompt) + len(tail)))
    sums = []
    for at in range(0, len(sequences), 2048):
        ids = padded(sequences[at:at + 2048], device)
        scores = torch.log_softmax(model.logits(model.hidden(ids[:, :-1], dtype)).float(), -1)
        scores = scores.gather(-1, ids[:, 1:, None])[..., 0].double()
        for row, (start, end) in zip(scores, spans[at:at + 2048]):
            sums.append(row[start - 1:end - 1].sum())
    picked = torch.stack(sums).view(-1, 4).argmax(1).tolist()
    return [p == i[5] for p, i in zip(picked, items)]


@torch.no_grad()
def generate(model, encode, prompts, device, dtype=torch.float32):
    """Greedy continuations up to <eos> or a blank line. No cache: the model is small, the code stays short."""
    blank = encode("\n\n")
    texts = [list(p) for p in prompts]
    active = list(range(len(texts)))
    for _ in range(NEW_TOKENS):
        tokens = last_logits(model, [texts[i] for i in active], device, dtype).argmax(1).tolist()
        still = []
        for i, token in zip(active, tokens):
            texts[i].append(token)
            if token != EOS and texts[i][-len(blank):] != blank:
                still.append(i)
        active = still
        if not active:
            break
    return [encode.decode(t[len(p):]) for t, p in zip(texts, prompts)]


def final_number(text):
    found = re.search(r"#### (-?[0-9.,]+)", text)
    return found and found.group(1)


def solve(model, encode, problems, device, dtype=torch.float32):
    prompts = [[BOS] + encode(f"Question: {q}\nAnswer:") for q, _ in problems]
    outputs = generate(model, encode, prompts, device, dtype)
    return [final_number(o) == final_number(a) for o, (_, a) in zip(outputs, problems)]


def windows(encode, text):
    """Rows <bos> + 255 tokens of a text; the rest of the text is left out."""
    ids, size = encode(text), CONTEXT - 1
    return [[BOS] + ids[at:at + size] for at in range(0, len(ids) - size + 1, size)]


@torch.no_grad()
def divergence(base, model, encode, text, device):
    """(KL divergence to the base in nats a token, share of equal top tokens, perplexity)."""
    kl = same = nll = count = 0
    rows = torch.tensor(windows(encode, text), device=device)
    for part in rows.split(32):
        want = torch.log_softmax(base(part)[:, :-1].double(), -1)
        have = torch.log_softmax(model(part)[:, :-1].double(), -1)
        kl += (want.exp() * (want - have)).sum().item()
        same += (want.argmax(-1) == have.argmax(-1)).sum().item()
        nll -= have.gather(-1, part[:, 1:, None]).sum().item()
        count += part[:, 1:].numel()
    return kl / count, same / count, math.exp(nll / count)


def mid_p(lost, won):
    """Two-sided mid-p McNemar."""
    n, low = lost + won, min(lost, won)
    if n == 0:
        return 1.0
    below = sum(math.comb(n, k) for k in range(low)) / 2 ** n
    at = math.comb(n, low) / 2 ** n
    return min(1.0, 2 * below + at) if lost != won else 1.0


class Probes:
    """Quick looks during training: option texts by tier, problems without and with a hard step."""

    def __init__(self, splits, encode, device):
        small, rng = device == "cpu", random.Random("probes")   # there it is a smoke test of the scripts
        self.encode, self.device = encode, device
        self.tiers = {tier: rng.sample(items, 4 if small else 400) for tier, items in splits.facts["dev"].items()}
        self.problems = {hard: pool[:1 if small else 100] for hard, pool in splits.problems["dev"].items()}

    def report(self, model, dtype):
        texts = [choose_texts(model, self.encode, items, self.device, dtype) for items in self.tiers.values()]
        solved = [solve(model, self.encode, pool, self.device, dtype) for pool in self.problems.values()]
        return (f"| dev: {'/'.join(self.tiers)} " + " ".join(f"{100 * sum(r) / len(r):.1f}" for r in texts) +
                " | problems plain/hard " + " ".join(f"{100 * sum(r) / len(r):.1f}" for r in solved))


def load_arm(spec, device):
    folder, _, how = spec.partition(":")
    model = gemma.load(folder, "cpu")
    if how == "q4":
        model.load_state_dict(q4.deployed(model.state_dict()))
    return model.to(device).eval()


def score(splits, encode, use, arms, device):
    """{arm: {"texts": {tier: [right]}, "problems": {"plain" | "hard": [right]}, "kl" ..}} over the whole pools."""
    base, results = None, {}
    for name, spec in (arm.split("=") for arm in arms):
        since, model = time.perf_counter(), load_arm(spec, device)
        base = base or model
        kl, same, perplexity = divergence(base, model, encode, splits.heldout, device)
        results[name] = {
            "texts": {tier: choose_texts(model, encode, items, device) for tier, items in splits.facts[use].items()},
            "problems": {"hard" if hard else "plain": solve(model, encode, pool, device)
                         for hard, pool in splits.problems[use].items()},
            "kl": kl, "same_top": same, "perplexity": perplexity}
        print(f"{use} {name}: {time.perf_counter() - since:.1f} s", flush=True)
    return results


def published(result):
    """The items that form the published split: {task: [right]}."""
    size, subjects = splits_module.FACTS_PER_KIND, len(facts.KINDS)
    texts = [right for tier, share in splits_module.FACT_SHARES.items() for subject in range(subjects)
             for right in result["texts"][tier][subject * size:][:round(share * size)]]
    hard = round(splits_module.HARD_SHARE * splits_module.PROBLEMS)
    return {"texts": texts, "problems": result["problems"]["hard"][:hard] +
            result["problems"]["plain"][:splits_module.PROBLEMS - hard]}


def percent(right):
    return f"{100 * sum(right) / len(right):.2f}"


def show(results):
    mixed = {name: published(result) for name, result in results.items()}
    for name, result in results.items():
        print(f"{name:12s} KL {result['kl']:.5f}  same top {100 * result['same_top']:.2f}  ppl {result['perplexity']:.4f}",
              *(f" {task} {percent(right)}" for task, right in mixed[name].items()),
              " of the pools:", *(f"{part} {percent(right)}" for task in ("texts", "problems") for part, right in result[task].items()))
    names = list(results)
    for x, y in ((x, y) for i, x in enumerate(names) for y in names[i + 1:]):
        for task in ("texts", "problems"):
            pairs = list(zip(mixed[x][task], mixed[y][task]))
            lost, won = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
            print(f"{x} -> {y}, {task}: lost {lost} won {won} of {len(pairs)}, mid-p {mid_p(lost, won):.2g}")


def main(work, use, out, arms):
    if arms:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.backends.cuda.matmul.allow_tf32 = False
        splits, encode = splits_module.Splits(facts.build_world()), Encoder(work / "tokenizer.json")
        out.write_text(json.dumps(score(splits, encode, use, arms, device)))
    if use == "dev" or not arms:
        show(json.loads(out.read_text()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
