"""Whether the base has seen an item of the test split that was drawn after its training.

    python recheck.py WORK STEPS

Makes the base's training stream again, without training. An item refused now and not then would be one that the base was
shown; with none of them, the stream is the one that it read.
"""
import os
import sys
from pathlib import Path

import corpus
import facts
from splits import Splits
from train import ROWS, SEEDS


def main(work, steps):
    splits = Splits(facts.build_world())
    workers = int(os.environ.get("DEMO_WORKERS", max((os.cpu_count() or 2) - 2, 1)))
    stream = corpus.Stream(work / "tokenizer.json", splits.reserved, SEEDS["base"], False, steps, ROWS, workers)
    rows = sum(len(batch) for batch in stream)
    seen = [key for key in stream.refused if key in splits.new_test_keys]
    print(rows, "rows,", len(stream.refused), "items refused,", len(seen), "of them of the new test split")
    assert not seen


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
