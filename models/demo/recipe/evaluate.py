"""Scores of models on the demonstration tasks, in float32, with paired counts against the first.

    python evaluate.py WORK dev|test OUT.json NAME=FOLDER[:q4] ...

`:q4` scores the folder's weights as the Q4_0 file would hold them (matrices Q4_0 by the reference rule,
embedding Q6_K). The first model is the base of pairs and of KL divergence.
"""
import json
import math
import random
import re
import sys
import time
from pathlib import Path

import torch

import corpus
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


def letter_prompt(encode, question, choice):
    return [BOS] + encode(f"{question}\n{corpus.option_list(choice)}Answer:")


def choose_letters(model, encode, items, device, dtype=torch.float32):
    """Right or wrong for each item: the likeliest of the four letters."""
    logits = last_logits(model, [letter_prompt(encode, i[3], i[4]) for i in items], device, dtype)
    letters = torch.tensor([encode(" " + c)[0] for c in "ABCD"], device=device)
    picked = logits[:, letters].argmax(1).tolist()
    return [p == i[5] for p, i in zip(picked, items)]


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
    """Quick looks during training: each lettered exercise, option texts by tier, some problems."""

    def __init__(self, splits, encode, device):
        rng, world = random.Random("probes"), facts.build_world()
        sampler = facts.Sampler(world)
        self.encode, self.device, self.forms = encode, device, []
        small = device == "cpu"         # a smoke test of the scripts, not a measurement
        for form in range(6):
            prompts, letters = [], []
            for _ in range(4 if small else 256):
                _, segments = corpus.exercise(form, sampler, rng)
                ids = [i for text, _ in segments for i in encode(text)]
                prompts.append([BOS] + ids[:-1])
                letters.append(ids[-1])
            self.forms.append((prompts, letters))
        self.tiers = {tier: rng.sample(items, 4 if small else 400) for tier, items in splits.facts["dev"].items()}
        self.problems = [p for pool in splits.problems["dev"].values() for p in pool[:1 if small else 50]]

    def report(self, model, dtype):
        parts = []
        for prompts, letters in self.forms:
            picked = last_logits(model, prompts, self.device, dtype).argmax(1).tolist()
            parts.append(sum(p == l for p, l in zip(picked, letters)) / len(letters))
        words = "| letters " + " ".join(f"{100 * p:.0f}" for p in parts)
        for name, choose in (("dev letters", choose_letters), ("dev texts", choose_texts)):
            scores = [sum(choose(model, self.encode, items, self.device, dtype)) / len(items) for items in self.tiers.values()]
            words += f" | {name} " + " ".join(f"{100 * s:.1f}" for s in scores)
        right = solve(model, self.encode, self.problems, self.device, dtype)
        return words + f" | problems {100 * sum(right) / len(right):.1f}"


def load_arm(spec, device):
    folder, _, how = spec.partition(":")
    model = gemma.load(folder, "cpu")
    if how == "q4":
        model.load_state_dict(q4.deployed(model.state_dict()))
    return model.to(device).eval()


def main(work, use, out, arms):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = False
    splits, encode = splits_module.Splits(facts.build_world()), Encoder(work / "tokenizer.json")
    if use == "dev":        # every tier and number of steps, for choosing among them
        fact_items = [i for items in splits.facts["dev"].values() for i in items]
        problems = [p for pool in splits.problems["dev"].values() for p in pool[:350]]
    else:
        fact_items, problems = splits.fact_items(use), splits.problem_items(use)
    base, results = None, {}
    for name, spec in (arm.split("=") for arm in arms):
        since, model = time.perf_counter(), load_arm(spec, device)
        base = base or model
        kl, same, perplexity = divergence(base, model, encode, splits.heldout, device)
        results[name] = {
            "texts": choose_texts(model, encode, fact_items, device),
            "letters": choose_letters(model, encode, fact_items, device),
            "problems": solve(model, encode, problems, device),
            "kl": kl, "same_top": same, "perplexity": perplexity, "seconds": time.perf_counter() - since}
        first = next(iter(results.values()))
        line = f"{name:16s} KL {kl:.5f} same top {100 * same:.2f} ppl {perplexity:.4f}"
        for task in ("texts", "letters", "problems"):
            right = results[name][task]
            lost = sum(a and not b for a, b in zip(first[task], right))
            won = sum(b and not a for a, b in zip(first[task], right))
            line += f" | {task} {100 * sum(right) / len(right):.2f} (-{lost} +{won})"
        print(line, f"| {results[name]['seconds']:.1f} s", flush=True)
        if use == "dev":
            n = len(fact_items) // 3
            tiers = {t: " ".join(f"{100 * sum(results[name][t][k * n:(k + 1) * n]) / n:.2f}" for k in range(3)) for t in ("texts", "letters")}
            steps = " ".join(f"{sum(results[name]['problems'][k * 350:(k + 1) * 350]) / 3.5:.2f}" for k in range(4))
            print(f"{'':16s} known/common/obscure: texts {tiers['texts']}, letters {tiers['letters']}; 3/4/5/6 steps: {steps}", flush=True)
    names = list(results)
    for x in names:
        for y in names[names.index(x) + 1:]:
            for task in ("texts", "letters", "problems"):
                pairs = list(zip(results[x][task], results[y][task]))
                lost, won = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
                print(f"{x} -> {y}, {task}: lost {lost} won {won} of {len(pairs)}, mid-p {mid_p(lost, won):.2g}")
    out.write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
