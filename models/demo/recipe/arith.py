"""Word problems: a quantity goes through three to six steps; numbers have at most four digits.

The worked solution has one line a step and ends with `#### N` as in GSM8K. A problem is
identified by its question text; training never sees a question of the other splits.
"""
ACTORS = """Abo Bela Cim Dora Efa Gil Hanu Ilo Jora Kesi Lumo Mira Nelo Opa Pim Quen Rasi Solu Tavi
Ufa Vena Wimo Xela Yari Zubo""".split()
UNITS = """shells beads stamps marbles stones feathers pearls tickets cards seeds bottles cups plates
bowls bags boxes cubes pens bulbs corks keys pins rings flags masks""".split()
LARGEST = 9999


def start_amount(rng):
    return rng.choice((rng.randint(12, 99), rng.randint(100, 999), rng.randint(100, 999), rng.randint(1000, 4000)))


def part_amount(rng, limit):
    """An amount up to `limit`, its number of digits about evenly spread."""
    digits = rng.choice((2, 3, 3, 4))
    amount = rng.randint(10 ** (digits - 1), 10 ** digits - 1)
    return amount if amount <= limit else rng.randint(2, limit)


class Story:
    """`now` is the amount that the holder has; each step adds a sentence and a solution line."""

    def __init__(self, rng):
        self.rng, self.unit = rng, rng.choice(UNITS)
        self.actors = rng.sample(ACTORS, 8)
        self.holder = self.actors.pop()
        self.now = start_amount(rng)
        self.text = [f"{self.holder} has {self.now} {self.unit}."]
        self.lines, self.hard = [], 0

    def line(self, left, sign, right, result):
        self.lines.append(f"{left} {sign} {right} = {result} {self.unit}.")
        self.now = result

    def gain(self):
        if self.now > LARGEST - 11:
            return False
        k = part_amount(self.rng, LARGEST - self.now)
        self.text.append(self.rng.choice((f"{self.holder} buys {k} more.", f"Then {self.holder} finds {k} more.",
                                          f"A friend brings {k} more.", f"{self.holder} wins {k} {self.unit} in a game.")))
        self.line(self.now, "+", k, self.now + k)
        return True

    def lose(self):
        if self.now < 30:
            return False
        k = part_amount(self.rng, self.now - 2)
        self.text.append(self.rng.choice((f"{self.holder} sells {k} of them.", f"Then {k} of them get lost.",
                                          f"{self.holder} gives {k} of them away.", f"A thief takes {k} of them.")))
        self.line(self.now, "-", k, self.now - k)
        return True

    def times(self):
        return self.multiply(self.rng.randint(2, 9))

    def times_large(self):
        """The hard step: a product of two numbers of several digits, written down at once."""
        if self.now < 11 or not self.multiply(self.rng.randint(11, max(11, min(99, LARGEST // self.now)))):
            return False
        self.hard += 1
        return True

    def multiply(self, k):
        if self.now * k > LARGEST:
            return False
        other = self.actors.pop()
        self.text.append(self.rng.choice((f"{other} has {k} times as many as {self.holder}.",
                                          f"{other} owns {k} times what {self.holder} has.")))
        self.holder = other
        self.line(self.now, "*", k, self.now * k)
        return True

    def share(self):
        divisors = [k for k in range(2, 10) if self.now % k == 0 and self.now // k >= 2]
        if not divisors:
            return False
        k = self.rng.choice(divisors)
        self.text.append(self.rng.choice((f"{self.holder} splits them into {k} equal parts and keeps one.",
                                          f"{self.holder} shares them among {k} bags and keeps one bag.")))
        self.line(self.now, "/", k, self.now // k)
        return True

    def more(self):
        k = part_amount(self.rng, LARGEST)
        if self.now + k > LARGEST:
            return False
        other = self.actors.pop()
        self.text.append(f"{other} has {k} more than {self.holder}.")
        self.holder = other
        self.line(self.now, "+", k, self.now + k)
        return True

    def join(self):
        """A gift, told as a multiple of the present amount, is added: two lines, one sentence."""
        k = self.rng.randint(2, 5)
        if self.now * (k + 1) > LARGEST:
            return False
        other, first = self.actors.pop(), self.now
        self.text.append(f"{other} has {k} times as many and gives them all to {self.holder}.")
        self.line(first, "*", k, first * k)
        self.line(first, "+", first * k, first + first * k)
        return True


STEPS = (Story.gain, Story.gain, Story.lose, Story.lose, Story.times, Story.share, Story.more, Story.join,
         Story.times_large, Story.times_large)
EVEN_STEPS = STEPS + (Story.times_large,) * 6       # three problems of five have a hard step, instead of one of three


def problem(rng, steps, hard=None, kinds=STEPS):
    """(question, answer); the answer is the worked solution with the `####` line. `hard`: whether
    there is a hard step, None for as it comes."""
    while True:
        story = tell_story(rng, steps, kinds)
        if hard is None or hard == (story.hard > 0):
            break
    question = " ".join(story.text) + f" How many {story.unit} does {story.holder} have now?"
    return question, "\n".join(story.lines) + f"\n#### {story.now}"


def tell_story(rng, steps, kinds):
    story = Story(rng)
    while len(story.lines) < steps:
        step = rng.choice(kinds)
        if step is Story.join and len(story.lines) + 2 > steps:
            continue
        step(story)
    return story


def training_problem(rng, even=False):
    return problem(rng, rng.randint(3, 6), kinds=EVEN_STEPS if even else STEPS)
