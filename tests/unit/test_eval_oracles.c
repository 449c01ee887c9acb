/* Recordings of lm-evaluation-harness's own stability tests (tests/testdata there): digests of all requests of a
 * task, documents shuffled by random.Random(42), and the metrics that fake scores -random() give. */
#include "check.h"

#include "eval/kinds.h"

static struct error err;

static const char *data_dir(void)
{
    const char *root = getenv("SHARED_DATA");
    return root ? root : "../shared/data";
}

/* ---- json.dumps ---- */

static void dump_string(struct text *t, const char *s)
{
    static const char shorts[] = "\"\"\\\\\nn\rr\tt\bb\ff";
    uint32_t c;
    text_putc(t, '"');
    for (size_t len = strlen(s); len;) {
        int n = utf8_decode(s, len, &c);
        const char *escape = NULL;
        for (const char *p = shorts; *p; p += 2)
            if ((uint32_t)(unsigned char)*p == c)
                escape = p + 1;
        if (escape)
            text_printf(t, "\\%c", *escape);
        else if (c >= 0x10000)
            text_printf(t, "\\u%04x\\u%04x", 0xD800 + ((c - 0x10000) >> 10), 0xDC00 + ((c - 0x10000) & 0x3FF));
        else if (c < 0x20 || c > 0x7E)
            text_printf(t, "\\u%04x", c);
        else
            text_putc(t, (char)c);
        s += n;
        len -= (size_t)n;
    }
    text_putc(t, '"');
}

static void dump_pair(struct text *t, const char *context, const char *continuation)
{
    text_puts(t, t->len > 1 ? ", [" : "[");
    dump_string(t, context);
    text_puts(t, ", ");
    if (continuation) {
        struct text spaced = { 0 };
        text_printf(&spaced, " %s", continuation);
        dump_string(t, spaced.data);
        text_free(&spaced);
    } else
        text_puts(t, "[\"\\n\"]");
    text_puts(t, "]");
}

/* ---- requests and fake metrics of items [first, first + n) of up to two tasks over the same records ---- */

struct oracle {
    struct text requests;
    struct py_random scores;
    double sums[2][4];          /* by task, by metric */
};

static void add_item(struct oracle *o, const struct task *t, int item, double *sums)
{
    struct arena a = { 0 };
    struct item_text x;
    MUST(item_render(t, item, &a, &x, &err));
    if (!x.n_choices)
        dump_pair(&o->requests, x.query, NULL);
    struct item_choice choices[64];
    bool greedy[64] = { false };
    CHECK(x.n_choices <= 64, "%d choices", x.n_choices);
    for (int c = 0; c < x.n_choices; c++) {
        dump_pair(&o->requests, x.query ? x.query : x.queries[c], x.choices[c]);
        choices[c] = (struct item_choice){ .logprob = -py_random_unit(&o->scores), .chars = (int)utf8_count(x.choices[c], strlen(x.choices[c])),
                                           .bytes = (int)strlen(x.choices[c]) };
    }
    struct scored_choices s = { choices, x.right, greedy, x.n_choices };
    for (int m = 0; x.n_choices && m < t->spec.n_metrics; m++)
        sums[m] += choice_metric_find(t->spec.metrics[m])->score(&s);
    arena_free(&a);
}

static void build(struct oracle *o, struct task *const *tasks, int n_tasks, int first, int n)
{
    struct py_random shuffle;
    int *order = mem_new((size_t)n, sizeof *order, &err);
    *o = (struct oracle){ 0 };
    for (int i = 0; i < n; i++)
        order[i] = first + i;
    py_random_seed(&shuffle, 42);
    py_random_seed(&o->scores, 42);
    py_random_shuffle(&shuffle, order, (size_t)n);
    text_puts(&o->requests, "[");
    for (int i = 0; i < n; i++)
        for (int k = 0; k < n_tasks; k++)
            add_item(o, tasks[k], order[i], o->sums[k]);
    text_puts(&o->requests, "]");
    free(order);
}

static void check_digest(struct oracle *o, const char *want, const char *name)
{
    uint8_t digest[32];
    char hex[65];
    MUST(sha256_bytes(o->requests.data, o->requests.len, digest, &err));
    hex_of(digest, 32, hex);
    CHECK(strcmp(hex, want) == 0, "%s: %s, want %s; begins\n%.300s", name, hex, want, o->requests.data);
    text_free(&o->requests);
}

static struct task *open_task(const char *name)
{
    struct task *t;
    struct task_options o = { .data_dir = data_dir(), .tasks_dir = "tasks", .mode = PROMPT_COMPAT, .shots = 0 };
    MUST(task_open(&t, name, &o, &err));
    return t;
}

static void test_requests(void **state)
{
    (void)state;
    static const struct {
        const char *tasks[2], *digest;
        double metrics[2][2];           /* 0: none recorded */
    } sets[] = {
        { { "piqa" }, "6048a3a2bb3ad1e6a3d98139618e06b4d7de766edd685bd38837596199c3f69f", { { .514145810663765, .5114254624591947 } } },
        { { "winogrande" }, "90a3eff49de9173964d46f5ed57bcf9a78a72dd1bfe0e5323b25cebb40b49ea9", { { .516179952644041 } } },
        { { "tests/golden/eval/gsm8k-v0" }, "e7292dbdd7fd8419ba954f2e0701e04c8d0e8842fe053dbf2fe47d926630e35e", { { 0 } } },
        /* mc2 by the true/false marks; the recording cut each list at its first false answer (.465437) */
        { { "truthfulqa_mc1", "truthfulqa_mc2" }, "226a6783976177dc9ceda5688623ff37023242eff30ddf270b886bf7b9b32228",
          { { .2141982864137087 }, { .46571141544916983 } } },
    };
    NEED_SHARED(here, "piqa/dev.jsonl");
    (void)here;
    for (size_t i = 0; i < ARRAY_LEN(sets); i++) {
        struct task *t[2] = { open_task(sets[i].tasks[0]), sets[i].tasks[1] ? open_task(sets[i].tasks[1]) : NULL };
        struct oracle o;
        int n_tasks = t[1] ? 2 : 1, n = task_size(t[0]);
        build(&o, t, n_tasks, 0, n);
        for (int k = 0; k < n_tasks; k++)
            for (int m = 0; m < 2 && sets[i].metrics[k][m] > 0; m++)
                CHECK_NEAR(o.sums[k][m] / n, sets[i].metrics[k][m], 1e-9, "%s metric %d", sets[i].tasks[k], m);
        check_digest(&o, sets[i].digest, sets[i].tasks[0]);
        task_close(t[0]);
        task_close(t[1]);
    }
}

/* The 57 subjects of MMLU in the format of that time: proves that the CSV is read to the byte. */
static void test_hendrycks(void **state)
{
    (void)state;
    NEED_SHARED(here, "mmlu/test/anatomy_test.csv");
    (void)here;
    struct task *t = open_task("tests/golden/eval/hendrycks-v0");
    FILE *f = fopen("tests/golden/eval/hendrycks-v0-requests.txt", "r");
    CHECK(f, "tests/golden/eval/hendrycks-v0-requests.txt is missing");
    char subject[80], digest[80];
    int first = 0, subjects = 0;
    for (; fscanf(f, "%79s %79s", subject, digest) == 2; subjects++) {
        int n = 0;
        while (first + n < task_size(t) && strncmp(t->items[first + n].id, subject, strlen(subject)) == 0 &&
               t->items[first + n].id[strlen(subject)] == '/')
            n++;
        CHECK(n > 0, "no items of %s", subject);
        struct oracle o;
        build(&o, &t, 1, first, n);
        if (strcmp(subject, "abstract_algebra") == 0) {
            CHECK_NEAR(o.sums[0][0] / n, .32, 1e-9, "abstract_algebra acc");
            CHECK_NEAR(o.sums[0][1] / n, .34, 1e-9, "abstract_algebra acc_norm");
        }
        check_digest(&o, digest, subject);
        first += n;
    }
    fclose(f);
    CHECK(subjects == 57 && first == 14042, "%d subjects, %d items", subjects, first);
    task_close(t);
}

/* ---- CPython's generator ---- */

static void test_random(void **state)
{
    (void)state;
    static const uint32_t bits[] = { 4150886329u, 3342196574u, 1892932127u, 501869158u, 32175636u, 389311301u };
    static const double units[] = { 0.9664535356921388, 0.4407325991753527, 0.007491470058587191 };
    static const int shuffled[] = { 7, 3, 2, 8, 5, 6, 9, 4, 0, 1 }, big[] = { 588, 1214, 57, 906, 1252, 618, 599, 289 };
    static const int chosen[] = { 8, 7, 4, 2, 5, 4, 7, 3, 4, 5 }, small[2][3] = { { 7, 1, 0 }, { 1, 0, 9 } };
    static const int hellaswag[] = { 28883, 7657, 490, 5940, 38156, 2288, 5500, 6450, 23241, 15519, 1142 };
    static const int winogrande[] = { 28883, 7657, 490, 5940, 38156, 2288 };
    static const int gsm8k[4][5] = { { 6374, 3610, 957, 61, 742 }, { 7462, 6610, 4769, 286, 5501 }, { 5677, 687, 806, 6279, 2905 },
                                     { 1939, 142, 252, 6461, 129 } };
    static const int arc[] = { 902, 239, 15, 185, 71, 171, 201, 726, 484, 35, 63, 32, 708, 991, 949, 304, 186, 374, 234, 29, 1030, 996, 511, 132, 1108 };
    static int x[1400], scratch[41000], out[32];
    struct py_random r;
    py_random_seed(&r, 1234);
    for (size_t i = 0; i < ARRAY_LEN(bits); i++) {
        uint32_t got = py_random_bits(&r, 32);
        CHECK(got == bits[i], "getrandbits %zu: %u, want %u", i, got, bits[i]);
    }
    py_random_seed(&r, 1234);
    for (size_t i = 0; i < ARRAY_LEN(units); i++)
        CHECK_NEAR(py_random_unit(&r), units[i], 0, "random() %zu", i);
    py_random_seed(&r, 1234);
    for (int s = 0; s < 2; s++) {
        py_random_sample(&r, 10, 3, out, scratch);
        CHECK(memcmp(out, small[s], sizeof small[s]) == 0, "sample(10, 3) number %d: %d %d %d", s, out[0], out[1], out[2]);
    }
    py_random_seed(&r, 42);
    CHECK_NEAR(py_random_unit(&r), 0.6394267984578837, 0, "seed 42");
    for (int n = 10; n <= 1319; n += 1309) {
        for (int i = 0; i < n; i++)
            x[i] = i;
        py_random_seed(&r, 42);
        py_random_shuffle(&r, x, (size_t)n);
        CHECK(memcmp(x, n == 10 ? shuffled : big, n == 10 ? sizeof shuffled : sizeof big) == 0, "shuffle of %d: %d %d %d", n, x[0], x[1], x[2]);
    }
    py_random_seed(&r, 0);
    for (size_t i = 0; i < ARRAY_LEN(chosen); i++) {
        int got = (int)(py_random_unit(&r) * 10);
        CHECK(got == chosen[i], "choices %zu: %d, want %d", i, got, chosen[i]);
    }
    static const struct {
        int n, k;
        const int *want;
        int rounds;
    } samples[] = { { 39905, 11, hellaswag, 1 }, { 40398, 6, winogrande, 1 }, { 7473, 5, gsm8k[0], 4 }, { 1119, 25, arc, 1 } };
    for (size_t s = 0; s < ARRAY_LEN(samples); s++) {
        py_random_seed(&r, 1234);
        for (int i = 0; i < samples[s].rounds; i++) {
            py_random_sample(&r, samples[s].n, samples[s].k, out, scratch);
            CHECK(memcmp(out, samples[s].want + i * samples[s].k, (size_t)samples[s].k * sizeof *out) == 0, "sample(%d, %d) round %d: %d %d",
                  samples[s].n, samples[s].k, i, out[0], out[1]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_hendrycks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
