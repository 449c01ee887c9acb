/* calibration_text.c - the built-in calibration text: short stories, lists, arithmetic and code put together from
 * the tables below by a seeded generator.  Better than nothing; real text of the model's own kind is better. */
#include "calibrate.h"

struct dice {
    uint64_t seed, turn;
};
static unsigned roll(struct dice *d, unsigned n)
{
    return (unsigned)(random_at(d->seed ^ 0x63616c6962ULL, d->turn++) % n);
}

static const char *const names[] = { "Mara", "Tom", "Lily", "Ben", "Anna", "Sue", "Omar", "Max", "Ines", "Jack", "Mia", "Sam", "Noor", "Leo" };
static const char *const animals[] = { "dog", "cat", "bird", "frog", "horse", "rabbit", "bear", "fox", "duck", "mouse", "owl", "goat" };
static const char *const things[] = { "ball", "box", "book", "stone", "flower", "boat", "lamp", "cake", "letter", "map", "key", "drum", "kite", "coat" };
static const char *const places[] = { "park", "garden", "river", "kitchen", "school", "market", "forest", "hill", "beach", "library", "station", "barn" };
static const char *const looks[] = { "big", "small", "red", "blue", "old", "shiny", "soft", "strange", "heavy", "warm", "broken", "beautiful", "quiet" };
static const char *const feelings[] = { "happy", "sad", "tired", "proud", "afraid", "curious", "angry", "calm", "hungry", "surprised" };
static const char *const acts[] = { "found", "lost", "wanted", "carried", "painted", "opened", "hid", "shared", "fixed", "bought", "saw", "dropped" };
static const char *const fields[] = { "the weather", "bread", "railways", "maps", "bees", "glass", "music", "rivers", "clocks", "sleep", "trade", "medicine" };
static const char *const claims[] = {
    "was used long before anyone could explain it", "depends on small differences in temperature", "spread along the old roads",
    "is taught in schools in many countries", "became cheaper when machines took over the work", "is measured in a different way today",
    "was described in a short letter that few people read", "needs patience more than strength", "changed how people planned their days",
};
static const char *const links[] = { "However, ", "As a result, ", "In the same year, ", "For example, ", "Later, ", "On the other hand, ", "" };
static const char *const vars[] = { "count", "total", "index", "value", "left", "right", "size", "limit", "next", "sum" };

/* Each in a declaration of its own: the order in which a call's arguments are evaluated is the compiler's choice. */
#define PICK(list) list[roll(d, (unsigned)ARRAY_LEN(list))]

static void story(struct text *t, struct dice *d)
{
    const char *who = PICK(names), *friend = PICK(names), *what = PICK(things), *where = PICK(places), *animal = PICK(animals);
    const char *animal_look = PICK(looks), *thing_look = PICK(looks), *act = PICK(acts);
    text_printf(t, "One day, %s went to the %s with a %s %s. ", who, where, animal_look, animal);
    text_printf(t, "%s %s a %s %s there. ", who, act, thing_look, what);
    text_printf(t, "\"Look!\" said %s. \"This %s is not mine. Do you know whose it is?\" ", who, what);
    text_printf(t, "%s thought about it and felt %s. ", friend, PICK(feelings));
    for (unsigned i = roll(d, 4); i; i--) {
        const char *beside = PICK(places), *other = PICK(things), *look = PICK(looks), *done = PICK(acts);
        text_printf(t, "They %s the %s and the %s %s beside the %s. ", done, what, look, other, beside);
    }
    text_printf(t, "The %s ran away, but it came back when it was %s. ", animal, PICK(feelings));
    text_printf(t, "In the end %s gave the %s to %s, and they were both %s.\n\n", who, what, friend, PICK(feelings));
}

static void article(struct text *t, struct dice *d)
{
    const char *subject = PICK(fields);
    text_printf(t, "The history of %s %s. ", subject, PICK(claims));
    for (unsigned i = 2 + roll(d, 4); i; i--) {
        unsigned year = 1500 + roll(d, 520), kind = roll(d, 3);
        const char *claim = PICK(claims);
        if (kind == 1) {
            unsigned share = 5 + roll(d, 90);
            text_printf(t, "%sabout %u %% of the work on %s %s. ", PICK(links), share, subject, claim);
            continue;
        }
        const char *field = PICK(fields), *link = PICK(links);
        if (kind == 0)
            text_printf(t, "%sin %u a study of %s %s. ", link, year, field, claim);
        else
            text_printf(t, "%speople compared %s with %s, which %s. ", link, subject, field, claim);
    }
    text_puts(t, "\n\n");
}

static void sums(struct text *t, struct dice *d)
{
    unsigned a = 2 + roll(d, 90), b = 2 + roll(d, 60), c = 2 + roll(d, 9), price = 1 + roll(d, 20);
    const char *thing = PICK(things), *who = PICK(names);
    text_printf(t, "Question: %s has %u %ss and buys %u more. Each costs %u dollars. How many are there now, and what did the new ones cost?\n",
                who, a, thing, b, price);
    text_printf(t, "Answer: There are %u + %u = %u now. The new ones cost %u * %u = %u dollars.\n", a, b, a + b, b, price, b * price);
    for (unsigned i = 0; i < c; i++) {
        unsigned x = roll(d, 500), y = 1 + roll(d, 40);
        text_printf(t, "%u - %u = %d; %u / %u = %u, remainder %u\n", x, y, (int)x - (int)y, x, y, x / y, x % y);
    }
    text_putc(t, '\n');
}

static void code(struct text *t, struct dice *d)
{
    const char *f = PICK(vars), *x = PICK(vars), *y = PICK(vars);
    unsigned n = 1 + roll(d, 100);
    if (roll(d, 2)) {
        text_printf(t, "def %s_of(%s, %s=%u):\n    result = []\n    for item in %s:\n", f, x, y, n, x);
        unsigned factor = roll(d, 12), divisor = 1 + roll(d, 9);
        text_printf(t, "        if item %% %u == 0 and item > %s:\n            result.append(item * %u)\n    return result\n\n", divisor, y, factor);
    } else {
        text_printf(t, "static int %s_%s(const int *%s, int n)\n{\n    int %s_sum = 0;\n", f, y, x, f);
        text_printf(t, "    for (int i = 0; i < n; i++)\n        %s_sum += %s[i] > %u ? %s[i] : -%u;\n    return %s_sum;\n}\n\n", f, x, n, x, roll(d, 50), f);
    }
}

static void list(struct text *t, struct dice *d)
{
    text_printf(t, "Things to take to the %s:\n", PICK(places));
    for (unsigned i = 1, n = 3 + roll(d, 5); i <= n; i++) {
        const char *who = PICK(names), *thing = PICK(things), *look = PICK(looks);
        text_printf(t, "%u. a %s %s for %s\n", i, look, thing, who);
    }
    char answer = (char)('A' + roll(d, 4));
    const char *third = PICK(things), *second = PICK(things), *first = PICK(things);
    text_printf(t, "\nWhich of these is the heaviest?\nA. the %s\nB. the %s\nC. the %s\nD. none of them\nAnswer: %c\n\n", first, second, third,
                answer);
}

void calibration_text(struct text *out, uint64_t seed, size_t bytes)
{
    static void (*const kinds[])(struct text *, struct dice *) = { story, story, story, article, article, sums, code, list };
    struct dice d = { seed, 0 };
    while (out->len < bytes && !out->failed)
        kinds[roll(&d, ARRAY_LEN(kinds))](out, &d);
}
