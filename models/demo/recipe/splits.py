"""What training must not see: test and development items, held-out text, calibration text.

Candidates are reserved for every tier of things and for problems with and without a hard step; how many of
each form the published test (`FACT_SHARES`, `HARD_SHARE`) was settled on the development split.
"""
import random

import arith
import corpus
import facts

FACT_SHARES = {"known": 0.24, "common": 0.24, "obscure": 0.24, "rare": 0.28}    # of the published test
HARD_SHARE = 0.45
FACTS_PER_KIND, PROBLEMS = 250, 700
HELDOUT_BYTES, CALIBRATION_BYTES = 240_000, 300_000


def fact_pool(world, use):
    """{tier: items}, 250 a subject and tier."""
    return {tier: facts.test_items(world, use, FACTS_PER_KIND, random.Random(f"{facts.SEED}/{use}/{tier}"), (tier,))
            for tier in facts.TIER_SHARE}


def problem_pool(use):
    """{hard: [(question, answer)]}, 700 of each, with three to six steps in turn."""
    pool = {}
    for hard in (False, True):
        rng = random.Random(f"{facts.SEED}/{use}/{hard}")
        pool[hard] = [arith.problem(rng, 3 + i % 4, hard) for i in range(PROBLEMS)]
    return pool


def passages(world, name, size, avoid):
    """Items from a seed of their own, about `size` bytes of text."""
    items, rng = corpus.Items(world, avoid), random.Random(f"{facts.SEED}/{name}")
    keys, texts, length = set(), [], 0
    while length < size:
        key, text = items.draw(rng)
        if key in avoid or key in keys:
            continue
        keys.add(key)
        texts.append(text)
        length += len(texts[-1]) + 2
    return keys, "\n\n".join(texts) + "\n"


class Splits:
    def __init__(self, world):
        self.facts = {use: fact_pool(world, use) for use in ("dev", "test")}
        self.problems = {use: problem_pool(use) for use in ("dev", "test", "sample")}
        self.reserved = set()
        for pool in self.facts.values():
            for items in pool.values():
                self.reserved |= {question for _, _, _, question, _, _ in items}
        for pool in self.problems.values():
            for problems in pool.values():
                self.reserved |= {question for question, _ in problems}
        keys, self.heldout = passages(world, "heldout", HELDOUT_BYTES, self.reserved)
        self.reserved |= keys
        keys, self.calibration = passages(world, "calibration", CALIBRATION_BYTES, self.reserved)
        self.reserved |= keys

    def fact_items(self, use):
        """The items of a split: 250 a subject, the tiers mixed by FACT_SHARES."""
        mixed = []
        for kind in facts.KINDS:
            own = []
            for tier, share in FACT_SHARES.items():
                items = [i for i in self.facts[use][tier] if i[0] == kind.name]
                own += items[:round(share * FACTS_PER_KIND)]
            random.Random(f"{facts.SEED}/{use}/{kind.name}").shuffle(own)
            mixed += own
        return mixed

    def problem_items(self, use):
        hard = round(HARD_SHARE * PROBLEMS)
        mixed = self.problems[use][True][:hard] + self.problems[use][False][:PROBLEMS - hard]
        random.Random(f"{facts.SEED}/{use}/problems").shuffle(mixed)
        return mixed
