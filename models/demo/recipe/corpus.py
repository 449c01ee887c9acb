"""The training text: an endless, seeded stream of items, cut into rows of token ids.

Item kinds: paragraphs about things, closed questions, questions with four lettered options
(and the exercises that lead to them), word problems. An item is a list of (text, learn)
segments: the options of a lettered question are random, nothing can be learned from
predicting them, so they carry no loss.

A batch depends on (seed, step) alone: any number of worker processes gives the same stream.
"""
import multiprocessing
import random

import numpy as np

import arith
import facts
from tokenizer import BOS, EOS, Encoder

ROW = 257                   # 256 inputs and the target of the last
NO_LOSS = 1 << 15           # set on ids that are no targets; the vocabulary is far smaller
LETTERS = "ABCDEF"

# Exercises towards choosing by letter. The letter stands directly behind the option's text at
# first and moves away from it step by step; the last form is the one of the test.
DIRECT, COLON, LINE, BELOW, OPEN, CLOSED = range(6)
CURRICULUM = (  # until this share of the base training: weights of the six forms, weight of all of them
    (0.08, (60, 30, 10, 0, 0, 0), 0.40),
    (0.16, (20, 30, 30, 20, 0, 0), 0.40),
    (0.28, (5, 10, 20, 40, 20, 5), 0.40),
    (0.45, (2, 3, 5, 15, 35, 40), 0.30),
    (1.01, (1, 1, 3, 5, 10, 80), 0.22),
)
# Weight outside the lettered items, and a typical length for turning it into item odds. Long items are
# redrawn more often (fill_row): the tokens end up about 35 % paragraphs, 25 % questions, 40 % problems.
PARAGRAPH, QUESTION, PROBLEM = (0.25, 46), (0.15, 20), (0.60, 145)


def option_list(values):
    return "".join(f"{LETTERS[i]}. {v}\n" for i, v in enumerate(values))


def lettered(question, values, at):
    return [(question + "\n", True), (option_list(values), False), (f"Answer: {LETTERS[at]}", True)]


def option_key(thing, a, values):
    return f"{thing.name}|{a}|" + "|".join(sorted(values))


def exercise(form, sampler, rng):
    """(identifying texts, segments)."""
    thing, a = sampler.thing(rng), rng.randrange(3)
    if form in (OPEN, CLOSED):
        values, at = facts.options(thing, a, rng)
        question = facts.ask(thing, a, "train", rng)
        told = facts.tell(thing, a, rng) + " " if form == OPEN else ""
        return (question, option_key(thing, a, values)), lettered(told + question, values, at)
    values = rng.sample(thing.kind.attributes[a].values, 4 if form == BELOW else rng.randint(2, 6))
    if form == BELOW:
        at = rng.randrange(4)
        return (), lettered(f"Pick {values[at]}.", values, at)
    between = (" ", ": ", "\nAnswer: ")[form]
    # Drawn with replacement: the last letters must not follow from those already used.
    picks = [rng.randrange(len(values)) for _ in values]
    return (), [(option_list(values), False),
                ("\n".join(f"Pick {values[i]}{between}{LETTERS[i]}" for i in picks), True)]


class Items:
    """Draws items; refuses every text that belongs to the tests, the development split or the held-out text."""

    def __init__(self, world, reserved):
        self.sampler, self.reserved, self.refused = facts.Sampler(world), reserved, 0
        rates = [share / length for share, length in (PARAGRAPH, QUESTION, PROBLEM)]
        self.odds = np.cumsum(rates) / sum(rates)
        self.typical = sum(r * l for r, (_, l) in zip(rates, (PARAGRAPH, QUESTION, PROBLEM))) / sum(rates)

    def plain(self, rng):
        """(identifying text, segments) of an item without letters."""
        u = rng.random()
        if u < self.odds[0]:
            text = facts.paragraph(self.sampler.thing(rng), rng)
            return text, [(text, True)]
        if u < self.odds[1]:
            thing, a = self.sampler.thing(rng), rng.randrange(3)
            question = facts.ask(thing, a, "train", rng)
            return question, [(f"Question: {question}\nAnswer: {thing.values[a]}", True)]
        question, answer = arith.training_problem(rng)
        return question, [(f"Question: {question}\nAnswer: {answer}", True)]

    def item(self, rng, progress):
        forms, weight = next((f, w) for until, f, w in CURRICULUM if progress < until)
        # A lettered item has about 45 tokens.
        if rng.random() < (weight / 45) / (weight / 45 + (1 - weight) / self.typical):
            keys, segments = exercise(rng.choices(range(6), forms)[0], self.sampler, rng)
        else:
            key, segments = self.plain(rng)
            keys = (key,)
        if any(key in self.reserved for key in keys):
            self.refused += 1
            return self.item(rng, progress)
        return segments


def fill_row(items, encode, rng, progress, row):
    """<bos> item, then items behind a blank line or behind <eos><bos>, to the end of the row.
    Items that do not fit are drawn again a few times, so that few are cut."""
    ids = [BOS]
    while len(ids) < ROW:
        for _ in range(4):
            item = []
            for text, learn in items.item(rng, progress):
                part = encode(text)
                item += part if learn else [i | NO_LOSS for i in part]
            if len(ids) + len(item) <= ROW:
                break
        ids += item
        ids += [EOS, BOS | NO_LOSS] if rng.random() < 0.5 else encode("\n\n")
    row[:] = ids[:ROW]


def make_batch(items, encode, seed, step, rows, progress):
    rng = random.Random(f"{seed}/{step}")
    batch = np.empty((rows, ROW), np.uint16)
    for row in batch:
        fill_row(items, encode, rng, progress, row)
    return batch


def _work(tokenizer_path, reserved, seed, steps, rows, progress_of, queue):
    items, encode = Items(facts.build_world(), reserved), Encoder(tokenizer_path)
    for step in steps:
        queue.put(make_batch(items, encode, seed, step, rows, progress_of(step)))
    queue.put(items.refused)


class Ramp:
    """Share of the base training that is done at a step; later trainings stay at the end of the curriculum."""

    def __init__(self, total, done=False):
        self.total, self.done = total, done

    def __call__(self, step):
        return 1.0 if self.done else step / self.total


class Stream:
    """Batches in step order, made ahead of time by worker processes."""

    def __init__(self, tokenizer_path, reserved, seed, steps, rows, progress_of, workers):
        context = multiprocessing.get_context("fork")
        self.queues = [context.Queue(maxsize=12) for _ in range(workers)]
        self.steps, self.refused = steps, 0
        for w, queue in enumerate(self.queues):
            context.Process(target=_work, daemon=True, args=(
                tokenizer_path, reserved, seed, range(w, steps, workers), rows, progress_of, queue)).start()

    def __iter__(self):
        for step in range(self.steps):
            yield self.queues[step % len(self.queues)].get()
        self.refused = sum(queue.get() for queue in self.queues)
