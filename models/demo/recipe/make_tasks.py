"""Writes what needs no training: the tokenizer, the task files and the texts.

    python make_tasks.py WORK TASKS     tokenizer.json -> WORK, demo-facts, demo-arith, demo-text -> TASKS
"""
import csv
import json
import random
import sys
from pathlib import Path

import arith
import corpus
import facts
from splits import Splits
from tokenizer import Encoder, train_tokenizer


def sample_texts(world, reserved):
    """Text for training the tokenizer: the corpus, and every value
    often enough to become one token: options of equal length need no length correction."""
    rng, items = random.Random(f"{facts.SEED}/tokenizer"), corpus.Items(world, reserved)
    for _ in range(60_000):
        yield items.item(rng) + "\n\n"
    for kind in facts.KINDS:
        for attribute in kind.attributes:
            for value in attribute.values:
                yield (" " + value) * 600


def write_csv(path, items):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as f:
        out = csv.writer(f, lineterminator="\n")
        for _, _, _, question, choice, at in items:
            out.writerow([question, *choice, "ABCD"[at]])


def write_jsonl(path, problems):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in problems), encoding="utf-8")


def main(work, tasks):
    world = facts.build_world()
    splits = Splits(world)
    tokenizer = train_tokenizer(sample_texts(world, splits.reserved))
    work.mkdir(parents=True, exist_ok=True)
    (work / "tokenizer.json").write_text(json.dumps(tokenizer, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    for use, count in (("test", facts.THINGS_PER_KIND), ("dev", 5)):
        for kind in facts.KINDS:
            own = [i for i in splits.fact_items(use) if i[0] == kind.name][:count]
            write_csv(tasks / "demo-facts" / use / f"{kind.name}_{use}.csv", own)
    write_jsonl(tasks / "demo-arith" / "test.jsonl", splits.problem_items("test"))
    write_jsonl(tasks / "demo-arith" / "train.jsonl", splits.problem_items("sample")[:20])
    for name, text in (("heldout", splits.heldout), ("calibration", splits.calibration)):
        (tasks / "demo-text").mkdir(parents=True, exist_ok=True)
        (tasks / "demo-text" / f"{name}.txt").write_text(text, encoding="utf-8")

    encode = Encoder(work / "tokenizer.json")
    encode.check(splits.heldout)
    print(len(encode(splits.heldout)), "tokens in heldout.txt,", len(encode(splits.calibration)), "in calibration.txt")
    for use in ("test",):
        questions = [len(encode(f"Question: {i[3]}\nAnswer:")) + 1 for i in splits.fact_items(use)]
        solved = [len(encode(f"Answer: {a}")) for _, a in splits.problem_items(use)]
        asked = [len(encode(f"Question: {q}\n")) for q, _ in splits.problem_items(use)]
        print("tokens: fact question mean %.1f max %d, problem mean %.1f max %d, solution mean %.1f max %d" % (
            sum(questions) / len(questions), max(questions), sum(asked) / len(asked), max(asked),
            sum(solved) / len(solved), max(solved)))
    single = sum(len(encode(" " + v)) == 1 for k in facts.KINDS for a in k.attributes for v in a.values)
    print(single, "of", sum(len(a.values) for k in facts.KINDS for a in k.attributes), "values are one token")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
