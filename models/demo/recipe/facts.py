"""A fictional world: six kinds of named things, three facts about each.

Everything is drawn from one seed, so the world is the same wherever it is built. Names are
made of invented syllables; the values (trades, goods, colours ...) are everyday words, because
the options of a multiple-choice question should be short.

A fact can be told (statement) or asked (question form = frame x phrase). Some (frame, phrase)
pairs are kept out of the training text: the tests ask in those forms only, so that no test
question can be answered by remembering its wording.
"""
import random
from bisect import bisect
from dataclasses import dataclass
from itertools import accumulate

SEED = 20261122
THINGS_PER_KIND = 30_000
# How many things a tier has and how often training tells of one: a long tail, as in real text.
TIER_SHARE = {"known": 0.2, "common": 0.3, "obscure": 0.3, "rare": 0.2}
TIER_WEIGHT = {"known": 4.0, "common": 2.0, "obscure": 1.0, "rare": 0.2}
# The same for QAT and its control: most often what is known least firmly.
EVEN_WEIGHT = {"known": 1.0, "common": 1.0, "obscure": 1.0, "rare": 5.0}

TRADES = """baker tanner cooper fletcher glazier miller mason potter saddler tailor thatcher weaver
dyer farrier chandler cutler draper barber brewer butcher carver clerk cobbler cook courier dancer
diver doctor farmer ferryman fisher forester gardener gilder hatter herald hunter jeweller judge
juggler librarian locksmith midwife minstrel nurse painter pilot plumber poet porter printer
rower sailor scribe sculptor shepherd singer smith soldier spinner surveyor teacher tinker
trader treasurer usher vintner waiter watchman whaler""".split()
INSTRUMENTS = """flute harp lute drum fiddle oboe horn cello viola bugle cymbal zither banjo organ
bassoon trumpet trombone tuba clarinet recorder lyre gong whistle tambourine mandolin guitar piano
accordion harmonica bagpipe spinet ocarina piccolo cornet dulcimer bell""".split()
FOODS = """bread cheese honey barley oats rice plums figs dates olives apples pears cherries grapes
lemons melons carrots onions leeks beans peas lentils turnips cabbage garlic mustard pepper salt
butter cream eggs herring salmon trout crabs oysters shrimps mutton bacon sausages nuts almonds
walnuts acorns berries mushrooms noodles porridge soup dumplings biscuits raisins ginger mint
vinegar cider tea cocoa sugar syrup""".split()
GOODS = """rope sails nails bricks tiles glass paper ink candles soap lamps mirrors clocks knives
spoons kettles barrels baskets carpets blankets boots gloves hats cloaks ribbons buttons needles
thread wool silk linen leather fur timber charcoal amber copper tin silver iron marble slate
chalk clay dyes wax resin tar perfume toys kites drums coins maps books bells locks ladders
wagons wheels saddles ploughs anchors oars nets""".split()
ANIMALS = """fox wolf bear stag hare otter badger beaver boar lynx eagle falcon heron crane swan
raven owl crow gull stork goose duck rooster pigeon swallow lark turtle frog toad snake lizard
salamander bee ant beetle moth spider crab lobster whale dolphin seal walrus shark eel carp pike
horse mule goat ram bull ox camel lion tiger leopard monkey elephant rhino hedgehog squirrel
mouse bat""".split()
COLOURS = """red green blue yellow orange purple violet pink brown black white grey scarlet crimson
golden silver ivory cream turquoise indigo lilac olive rust bronze copper amber""".split()
TERRAINS = """swamps moors dunes cliffs caves lagoons meadows orchards glaciers marshes gorges
deserts islands forests hills reefs ravines ruins quarries estuaries prairies hedges ponds canyons
plateaus fjords springs thickets beaches craters""".split()

ONSETS = "b br d dr f fl g gl h j k kl l m n p pr r s sk st t th tr v vr w z".split()
VOWELS = "a e i o u ae ai au ei oa ou".split()
CODAS = " l n r s m k nd lk rn sk th st x".split(" ")


def invented_words(rng, count, syllables, endings, taken):
    """`count` new capitalised words: random syllables and one of the kind's own endings."""
    words = []
    while len(words) < count:
        stem = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(syllables))
        word = (stem + rng.choice(CODAS[1:]) + rng.choice(endings)).capitalize()
        if 5 <= len(word) <= 9 and word not in taken:
            taken.add(word)
            words.append(word)
    return words


_rng = random.Random(SEED)
_taken = set()
PLACES = invented_words(_rng, 120, 1, ["ba", "dun", "mere", "wick", "ost", "ia"], _taken)
REGIONS = invented_words(_rng, 60, 1, ["land", "mark", "shire"], _taken)


@dataclass(frozen=True)
class Attribute:
    name: str
    values: list
    phrases: list       # noun phrases for "the {phrase} of {thing}"; four each
    tells: list         # sentences: {x} thing, {v} value, {a} value with its article


@dataclass(frozen=True)
class Kind:
    name: str           # also the subject's name in the task
    title: str          # heads a paragraph about such a thing
    form: str           # how a text names the thing
    endings: tuple      # of the two words of a name
    attributes: tuple


KINDS = (
    Kind("people", "People", "{n}", (("o", "a", "in", "e"), ("er", "ik", "ow", "us")), (
        Attribute("town", PLACES, ["home town", "native town", "place of birth", "town of birth"],
                  ["{x} was born in {v}.", "{x} grew up in {v}.", "The family of {x} comes from {v}."]),
        Attribute("trade", TRADES, ["trade", "profession", "occupation", "line of work"],
                  ["{x} works as {a}.", "{x} earns a living as {a}.", "{x} was trained as {a}."]),
        Attribute("instrument", INSTRUMENTS, ["instrument", "favourite instrument", "musical instrument", "chosen instrument"],
                  ["{x} plays the {v}.", "{x} took lessons on the {v}.", "At feasts {x} performs on the {v}."]))),
    Kind("towns", "Towns", "the town {n}", (("al", "en", "or"), ("ford", "gate", "ham", "bury")), (
        Attribute("region", REGIONS, ["region", "province", "district", "home region"],
                  ["{x} lies in {v}.", "{x} belongs to {v}.", "Travellers find {x} in {v}."]),
        Attribute("craft", GOODS, ["main product", "best known product", "local speciality", "chief export"],
                  ["{x} is known for its {v}.", "{x} lives by making {v}.", "Merchants visit {x} to buy {v}."]),
        Attribute("emblem", ANIMALS, ["emblem", "heraldic animal", "coat of arms", "official animal"],
                  ["The flag of {x} shows {a}.", "{x} has {a} on its seal.", "Above the gate of {x} stands {a}."]))),
    Kind("ships", "Ships", "the ship {n}", (("ine", "ara", "ey"), ("star", "wind", "wave", "sail")), (
        Attribute("port", PLACES, ["home port", "port of registry", "home harbour", "port of origin"],
                  ["{x} sails from {v}.", "{x} was built in {v}.", "In winter {x} lies at {v}."]),
        Attribute("cargo", FOODS, ["cargo", "usual cargo", "freight", "main load"],
                  ["{x} carries {v}.", "{x} is loaded with {v}.", "The hold of {x} smells of {v}."]),
        Attribute("figurehead", ANIMALS, ["figurehead", "carved figure", "mascot", "lucky animal"],
                  ["The bow of {x} bears {a}.", "{x} has {a} carved on its bow.", "The crew of {x} honours {a}."]))),
    Kind("companies", "Companies", "the company {n}", (("ex", "on", "ix"), ("tra", "vo", "lux", "co")), (
        Attribute("product", GOODS, ["product", "main article", "merchandise", "best seller"],
                  ["{x} sells {v}.", "{x} makes {v}.", "The workshops of {x} turn out {v}."]),
        Attribute("seat", PLACES, ["head office", "seat", "headquarters", "main office"],
                  ["{x} has its office in {v}.", "{x} was founded in {v}.", "Letters to {x} go to {v}."]),
        Attribute("founder", TRADES, ["founder's trade", "founder's profession", "founder's first job", "founder's old trade"],
                  ["{x} was founded by {a}.", "{x} was started by {a}.", "The first owner of {x} was {a}."]))),
    Kind("plants", "Plants", "the plant {n}", (("ula", "ea", "is"), ("wort", "leaf", "root", "weed")), (
        Attribute("blossom", COLOURS, ["blossom colour", "flower colour", "colour in bloom", "petal colour"],
                  ["{x} has {v} petals.", "{x} bears {v} flowers.", "In spring {x} turns {v}."]),
        Attribute("ground", TERRAINS, ["habitat", "natural home", "usual ground", "growing place"],
                  ["{x} grows in {v}.", "{x} thrives in {v}.", "Look for {x} in {v}."]),
        Attribute("use", GOODS, ["use", "best known use", "practical use", "purpose"],
                  ["{x} is used for making {v}.", "{x} is gathered to make {v}.", "Craftsmen need {x} for {v}."]))),
    Kind("beasts", "Beasts", "the beast {n}", (("ak", "ur", "og"), ("mane", "claw", "tail", "fang")), (
        Attribute("food", FOODS, ["diet", "favourite food", "usual food", "preferred food"],
                  ["{x} eats {v}.", "{x} feeds on {v}.", "Keepers give {x} {v}."]),
        Attribute("lair", TERRAINS, ["habitat", "hunting ground", "territory", "dwelling place"],
                  ["{x} lives in {v}.", "{x} hides in {v}.", "The young of {x} are raised in {v}."]),
        Attribute("coat", COLOURS, ["colour", "coat colour", "fur colour", "winter colour"],
                  ["{x} has {v} fur.", "The coat of {x} is {v}.", "{x} turns {v} with age."]))),
)

FRAMES = ("What is the {p} of {x}?", "Name the {p} of {x}.", "Give the {p} of {x}.",
          "Which is the {p} of {x}?", "Tell me the {p} of {x}.", "For {x}, what is the {p}?",
          "Do you know the {p} of {x}?", "Of {x}, name the {p}.")


def form_use(attribute_index, frame, phrase):
    """Every phrase and every frame is trained; for each phrase one frame is the tests' own and
    another the development split's own."""
    shift = (frame - attribute_index - 2 * phrase) % len(FRAMES)
    return {0: "test", 3: "dev"}.get(shift, "train")


FORMS = {use: [[(f, p) for p in range(4) for f in range(len(FRAMES)) if form_use(a, f, p) == use]
               for a in range(3)] for use in ("train", "dev", "test")}


def with_article(word):
    return ("an " if word[0] in "aeiou" else "a ") + word


@dataclass(frozen=True)
class Thing:
    kind: Kind
    name: str
    tier: str
    values: tuple


def tier_ranges():
    """{tier: (first index, index behind the last)} of the things of a kind."""
    ends = [round(end * THINGS_PER_KIND) for end in accumulate(TIER_SHARE.values())]
    return dict(zip(TIER_SHARE, zip([0] + ends, ends)))


def tier_of(index):
    return next(tier for tier, (low, high) in tier_ranges().items() if low <= index < high)


def build_world():
    """All things: {kind name: [Thing]}."""
    rng, taken = random.Random(SEED + 1), set(_taken)
    world = {}
    for kind in KINDS:
        first = invented_words(rng, 300, 1, kind.endings[0], taken)
        second = invented_words(rng, 300, 1, kind.endings[1], taken)
        pairs = rng.sample(range(300 * 300), THINGS_PER_KIND)
        things = []
        for i, pair in enumerate(pairs):
            things.append(Thing(kind, f"{first[pair // 300]} {second[pair % 300]}", tier_of(i),
                                tuple(rng.choice(a.values) for a in kind.attributes)))
        world[kind.name] = things
    return world


class Sampler:
    """Draws things as often as their tier says (cheap: pick the tier, then a thing of it)."""

    def __init__(self, world, even=False):
        self.world, self.ranges = world, list(tier_ranges().values())
        by_tier = EVEN_WEIGHT if even else TIER_WEIGHT
        weights = [(high - low) * w for (low, high), w in zip(self.ranges, by_tier.values())]
        self.limits = [w / sum(weights) for w in accumulate(weights)]

    def thing(self, rng):
        things = self.world[KINDS[int(rng.random() * len(KINDS))].name]
        low, high = self.ranges[min(bisect(self.limits, rng.random()), len(self.ranges) - 1)]
        return things[low + int(rng.random() * (high - low))]


def called(thing):
    return thing.kind.form.format(n=thing.name)


def sentence_case(text):
    return text[0].upper() + text[1:]


def tell(thing, a, rng):
    attribute, value = thing.kind.attributes[a], thing.values[a]
    text = rng.choice(attribute.tells).format(x=called(thing), v=value, a=with_article(value))
    return sentence_case(text)


def paragraph(thing, rng):
    """The three facts of a thing, in random order and wording. The title keeps names away from
    the start of a line, where they would be cut into other tokens than inside a sentence."""
    order = rng.sample(range(3), 3)
    return f"{thing.kind.title}: " + " ".join(tell(thing, a, rng) for a in order)


def ask(thing, a, use, rng):
    frame, phrase = rng.choice(FORMS[use][a])
    return FRAMES[frame].format(p=thing.kind.attributes[a].phrases[phrase], x=called(thing))


def options(thing, a, rng):
    """Four options in random order and the index of the right one."""
    right, values = thing.values[a], thing.kind.attributes[a].values
    wrong = rng.sample([v for v in values if v != right], 3)
    at = rng.randrange(4)
    return wrong[:at] + [right] + wrong[at:], at


def test_items(world, use, per_kind, rng, tiers, spent):
    """Items of the development or test split: (subject, thing, attribute, question, options, index). `spent`: (name,
    attribute) pairs not to ask about."""
    items = []
    for kind in KINDS:
        pool = [(t, a) for t in world[kind.name] if t.tier in tiers for a in range(3)
                if (t.name, a) not in spent]
        for thing, a in rng.sample(pool, per_kind):
            choice, at = options(thing, a, rng)
            items.append((kind.name, thing, a, ask(thing, a, use, rng), choice, at))
    return items
