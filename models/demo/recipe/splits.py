"""What training must not see: test and development items, held-out text, calibration text.

Candidates are reserved for every tier of things and for problems with and without a hard step; how many of
each form the published test (`FACT_SHARES`, `HARD_SHARE`) was settled on the development split. The first published
test was scored more than once; it is still reserved, and `test` was drawn anew, without its facts.
"""
import random

import arith
import corpus
import facts

FACT_SHARES = {"known": 0.22, "common": 0.22, "obscure": 0.22, "rare": 0.34}    # of the published test
HARD_SHARE = 0.55
SEED_WORDS = {"dev": "dev", "first": "test", "test": "test-2", "sample": "sample"}      # of the pools' seeds
FACTS_PER_KIND, PROBLEMS = 250, 700
HELDOUT_BYTES, CALIBRATION_BYTES = 240_000, 300_000


def fact_pool(world, use, spent=frozenset()):
    """{tier: items}, 250 a subject and tier; none about a fact of `spent`, pairs of a thing's name and an attribute."""
    return {tier: facts.test_items(world, "dev" if use == "dev" else "test", FACTS_PER_KIND,
                                   random.Random(f"{facts.SEED}/{SEED_WORDS[use]}/{tier}"), (tier,), spent)
            for tier in facts.TIER_SHARE}


def asked_facts(pool):
    return {(thing.name, a) for items in pool.values() for _, thing, a, _, _, _ in items}


def problem_pool(use):
    """{hard: [(question, answer)]}, 700 of each, with three to six steps in turn."""
    pool = {}
    for hard in (False, True):
        rng = random.Random(f"{facts.SEED}/{SEED_WORDS[use]}/{hard}")
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
        self.facts = {use: fact_pool(world, use) for use in ("dev", "first")}
        self.facts["test"] = fact_pool(world, "test", asked_facts(self.facts["first"]))
        self.problems = {use: problem_pool(use) for use in SEED_WORDS}
        self.reserved = set().union(*map(self.questions, SEED_WORDS))
        self.new_test_keys = self.questions("test") - set().union(*(self.questions(use) for use in SEED_WORDS if use != "test"))
        keys, self.heldout = passages(world, "heldout", HELDOUT_BYTES, self.reserved)
        self.reserved |= keys
        keys, self.calibration = passages(world, "calibration", CALIBRATION_BYTES, self.reserved)
        self.reserved |= keys

    def questions(self, use):
        return ({item[3] for items in self.facts.get(use, {}).values() for item in items} |
                {question for problems in self.problems[use].values() for question, _ in problems})

    def fact_items(self, use):
        """The items of a split: 250 a subject, the tiers mixed by FACT_SHARES."""
        mixed = []
        for kind in facts.KINDS:
            own = []
            for tier, share in FACT_SHARES.items():
                items = [i for i in self.facts[use][tier] if i[0] == kind.name]
                own += items[:round(share * FACTS_PER_KIND)]
            random.Random(f"{facts.SEED}/{SEED_WORDS[use]}/{kind.name}").shuffle(own)
            mixed += own
        return mixed

    def problem_items(self, use):
        hard = round(HARD_SHARE * PROBLEMS)
        mixed = self.problems[use][True][:hard] + self.problems[use][False][:PROBLEMS - hard]
        random.Random(f"{facts.SEED}/{SEED_WORDS[use]}/problems").shuffle(mixed)
        return mixed
