"""The training text: an endless, seeded stream of items, cut into rows of token ids.

Item kinds: paragraphs about things, questions with their answers, word problems with worked
solutions. A batch depends on (seed, step) alone: any number of worker processes gives the same
stream.

The base is trained on the long tail as it is. The `even` stream, which QAT and its control read,
covers what the base knows more evenly: the rarely told things more often than the others, hard steps
in most of the problems, and half of the rows begin inside an item, as windows cut from running text do. QAT
on the uneven stream kept the often told facts and lost the rare ones as plainly as rounding does.
"""
import multiprocessing
import random

import numpy as np

import arith
import facts
from tokenizer import BOS, EOS, Encoder

ROW = 257                   # 256 inputs and the target of the last
# Weight and typical length, for turning weights into item odds. Long items are redrawn more often
# (fill_row), so problems end up with fewer tokens than their weight.
PARAGRAPH, QUESTION, PROBLEM = (0.27, 46), (0.18, 20), (0.55, 145)


class Items:
    """Draws items; refuses every text that belongs to the tests, the development split or the held-out text."""

    def __init__(self, world, reserved, even=False):
        self.sampler, self.reserved, self.even, self.refused = facts.Sampler(world, even), reserved, even, []
        rates = [share / length for share, length in (PARAGRAPH, QUESTION, PROBLEM)]
        self.odds = np.cumsum(rates) / sum(rates)

    def draw(self, rng):
        """(identifying text, text) of an item, whatever split it belongs to."""
        u = rng.random()
        if u < self.odds[0]:
            text = facts.paragraph(self.sampler.thing(rng), rng)
            return text, text
        if u < self.odds[1]:
            thing, a = self.sampler.thing(rng), rng.randrange(3)
            question = facts.ask(thing, a, "train", rng)
            return question, f"Question: {question}\nAnswer: {thing.values[a]}"
        question, answer = arith.training_problem(rng, self.even)
        return question, f"Question: {question}\nAnswer: {answer}"

    def item(self, rng):
        while True:
            key, text = self.draw(rng)
            if key not in self.reserved:
                return text
            self.refused.append(key)


def fill_row(items, encode, rng, row):
    """<bos> item, then items behind a blank line or behind <eos><bos>, to the end of the row.
    Items that do not fit are drawn again a few times, so that few are cut."""
    ids = [BOS]
    while len(ids) < ROW:
        for _ in range(4):
            item = encode(items.item(rng))
            if len(ids) + len(item) <= ROW:
                break
        if items.even and len(ids) == 1 and rng.random() < 0.5:
            item = item[rng.randrange(len(item)):]
        ids += item
        ids += [EOS, BOS] if rng.random() < 0.5 else encode("\n\n")
    row[:] = ids[:ROW]


def make_batch(items, encode, seed, step, rows):
    rng = random.Random(f"{seed}/{step}")
    batch = np.empty((rows, ROW), np.uint16)
    for row in batch:
        fill_row(items, encode, rng, row)
    return batch


def _work(tokenizer_path, reserved, seed, even, steps, rows, queue):
    items, encode = Items(facts.build_world(), reserved, even), Encoder(tokenizer_path)
    for step in steps:
        queue.put(make_batch(items, encode, seed, step, rows))
    queue.put(items.refused)


class Stream:
    """Batches in step order, made ahead of time by worker processes."""

    def __init__(self, tokenizer_path, reserved, seed, even, steps, rows, workers):
        context = multiprocessing.get_context("fork")
        self.queues = [context.Queue(maxsize=12) for _ in range(workers)]
        self.steps, self.refused = steps, []      # keys of the refused items, complete behind the last step
        for w, queue in enumerate(self.queues):
            context.Process(target=_work, daemon=True, args=(
                tokenizer_path, reserved, seed, even, range(w, steps, workers), rows, queue)).start()

    def __iter__(self):
        for step in range(self.steps):
            yield self.queues[step % len(self.queues)].get()
        self.refused = [key for queue in self.queues for key in queue.get()]
