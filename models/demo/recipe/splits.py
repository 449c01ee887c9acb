"""What training must not see: test and development items, held-out text, calibration text.

Candidates are reserved for every tier of things and every number of steps; which of them form the
published test (`FACT_TIERS`, `PROBLEM_STEPS`) was settled on the development split.
"""
import random

import arith
import corpus
import facts

FACT_TIERS = ("known", "common", "obscure")     # of the published test
PROBLEM_STEPS = (3, 4, 5, 6)
FACTS_PER_KIND, PROBLEMS = 250, 700
HELDOUT_BYTES, CALIBRATION_BYTES = 240_000, 300_000


def fact_pool(world, use):
    """{tier: items}, 250 a subject and tier."""
    return {tier: facts.test_items(world, use, FACTS_PER_KIND, random.Random(f"{facts.SEED}/{use}/{tier}"), (tier,))
            for tier in facts.TIER_SHARE}


def problem_pool(use):
    """{steps: [(question, answer)]}, 700 of each."""
    pool = {}
    for steps in (3, 4, 5, 6):
        rng = random.Random(f"{facts.SEED}/{use}/{steps}")
        pool[steps] = [arith.problem(rng, steps) for _ in range(PROBLEMS)]
    return pool


def passages(world, name, size, avoid):
    """Items of the plain kinds from a seed of their own, about `size` bytes of text."""
    items, rng = corpus.Items(world, avoid), random.Random(f"{facts.SEED}/{name}")
    keys, texts, length = set(), [], 0
    while length < size:
        key, segments = items.plain(rng)
        if key in avoid or key in keys:
            continue
        keys.add(key)
        texts.append("".join(text for text, _ in segments))
        length += len(texts[-1]) + 2
    return keys, "\n\n".join(texts) + "\n"


class Splits:
    def __init__(self, world):
        self.facts = {use: fact_pool(world, use) for use in ("dev", "test")}
        self.problems = {use: problem_pool(use) for use in ("dev", "test", "sample")}
        self.reserved = set()
        for pool in self.facts.values():
            for items in pool.values():
                for _, thing, a, question, choice, _ in items:
                    self.reserved |= {question, corpus.option_key(thing, a, choice)}
        for pool in self.problems.values():
            for problems in pool.values():
                self.reserved |= {question for question, _ in problems}
        keys, self.heldout = passages(world, "heldout", HELDOUT_BYTES, self.reserved)
        self.reserved |= keys
        keys, self.calibration = passages(world, "calibration", CALIBRATION_BYTES, self.reserved)
        self.reserved |= keys

    def fact_items(self, use):
        """The items of a split: every subject's tiers in equal parts, shuffled; 250 a subject."""
        mixed, count = [], FACTS_PER_KIND // len(FACT_TIERS)
        for kind in facts.KINDS:
            own = []
            for n, tier in enumerate(FACT_TIERS):
                items = [i for i in self.facts[use][tier] if i[0] == kind.name]
                own += items[:FACTS_PER_KIND - count * (len(FACT_TIERS) - 1) if n == 0 else count]
            random.Random(f"{facts.SEED}/{use}/{kind.name}").shuffle(own)
            mixed += own
        return mixed

    def problem_items(self, use):
        mixed = [p for steps in PROBLEM_STEPS for p in self.problems[use][steps][:PROBLEMS // len(PROBLEM_STEPS)]]
        random.Random(f"{facts.SEED}/{use}/problems").shuffle(mixed)
        return mixed
