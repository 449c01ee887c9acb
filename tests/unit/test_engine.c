/* The engine against independent logits, and against itself: the same bits however the work is cut up. */
#include "engine_golden.h"

/* ---- ways to run two sequences of n tokens; all must give the same bits ---- */

struct run {
    struct engine *e;
    const int32_t *ids[SEQS];
    int n, vocab;
    float *out;                 /* [SEQS][n][vocab] */
};

static float *at(const struct run *r, int s, int position)
{
    return r->out + ((size_t)s * (size_t)r->n + (size_t)position) * (size_t)r->vocab;
}

/* Positions [from, to) of sequence s into q. */
static void feed(const struct run *r, struct seq *q, int s, int from, int to)
{
    feed_all(r->e, q, r->ids[s] + from, to - from, at(r, s, from));
}

static void by_chunks(const struct run *r, int size)
{
    for (int s = 0; s < SEQS; s++) {
        struct seq *q = seq_with(r->e, NULL);
        for (int i = 0; i < r->n; i += size)
            feed(r, q, s, i, i + size < r->n ? i + size : r->n);
        CHECK(seq_length(q) == r->n, "length %d, expected %d", seq_length(q), r->n);
        seq_close(q);
    }
}

static void together(const struct run *r, int size)
{
    struct seq *q[SEQS] = { seq_with(r->e, NULL), seq_with(r->e, NULL) };
    float *part = mem_new((size_t)SEQS * (size_t)size * (size_t)r->vocab, sizeof *part, &err);
    for (int i = 0; i < r->n; i += size) {
        int n = i + size < r->n ? size : r->n - i;
        struct span p[SEQS] = { { q[0], r->ids[0] + i, n, 0 }, { q[1], r->ids[1] + i, n, 0 } };
        MUST(engine_forward(r->e, p, SEQS, part, &err));
        for (int s = 0; s < SEQS; s++)
            memcpy(at(r, s, i), part + (size_t)s * (size_t)n * (size_t)r->vocab, (size_t)n * (size_t)r->vocab * sizeof *part);
    }
    free(part);
    seq_close(q[0]);
    seq_close(q[1]);
}

/* A tree: root [0, a), child [a, b), two leaves with the same rest in one call; a and b share blocks of K/V. */
static void through_prefixes(const struct run *r, int size)
{
    int a = size, b = size + (r->n - size) / 2;
    for (int s = 0; s < SEQS; s++) {
        struct seq *root = seq_with(r->e, NULL);
        feed(r, root, s, 0, a);
        struct seq *child = seq_with(r->e, root);
        feed(r, child, s, a, b);
        struct seq *leaf[2] = { seq_with(r->e, child), seq_with(r->e, child) };
        size_t floats = (size_t)(r->n - b) * (size_t)r->vocab;
        float *both = mem_new(2 * floats, sizeof *both, &err);
        struct span p[2] = { { leaf[0], r->ids[s] + b, r->n - b, 0 }, { leaf[1], r->ids[s] + b, r->n - b, 0 } };
        MUST(engine_forward(r->e, p, 2, both, &err));
        CHECK(memcmp(both, both + floats, floats * sizeof *both) == 0, "two leaves of one prefix differ");
        memcpy(at(r, s, b), both, floats * sizeof *both);
        free(both);
        seq_close(leaf[0]);
        seq_close(leaf[1]);
        seq_close(child);
        seq_close(root);
    }
}

/* Wrong tokens first, then back to position size, then the right ones. */
static void after_truncation(const struct run *r, int size)
{
    for (int s = 0; s < SEQS; s++) {
        struct seq *q = seq_with(r->e, NULL);
        feed(r, q, s, 0, size);
        struct span wrong = { q, r->ids[1 - s], r->n - size, r->n - size };
        MUST(engine_forward(r->e, &wrong, 1, NULL, &err));
        seq_truncate(q, size);
        feed(r, q, s, size, r->n);
        seq_close(q);
    }
}

static const struct way {
    const char *name;
    void (*run)(const struct run *r, int size);
    int size;
} ways[] = {
    { "whole", by_chunks, 1000 },           { "together", together, 1000 },     { "chunks of 7", by_chunks, 7 },
    { "chunks of 1", by_chunks, 1 },        { "chunks of 16", by_chunks, 16 },  { "chunks of 17", by_chunks, 17 },
    { "together by 7", together, 7 },       { "prefix of 1", through_prefixes, 1 },
    { "prefix of 16", through_prefixes, 16 }, { "prefix of 37", through_prefixes, 37 },
    { "truncated to 9", after_truncation, 9 },
};

static const struct setting {
    int threads, batch_tokens;
    size_t n_ways;
} settings[] = { { 2, 64, ARRAY_LEN(ways) }, { 1, 5, 4 }, { 2, 1, 2 }, { 1, 64, 1 } };

static void same_bits_all_ways(const char *name, struct run *r, enum act_mode act, const struct model *m, float *first)
{
    size_t bytes = (size_t)SEQS * (size_t)r->n * (size_t)r->vocab * sizeof(float);
    for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
        r->e = engine_with(m, act, settings[i].threads, settings[i].batch_tokens);
        for (size_t w = 0; w < settings[i].n_ways; w++) {
            bool is_first = i == 0 && w == 0;
            r->out = is_first ? first : mem_new(bytes, 1, &err);
            ways[w].run(r, ways[w].size < r->n ? ways[w].size : r->n);
            CHECK(memcmp(r->out, first, bytes) == 0, "%s, %s, threads %d, batch %d: %s differs from the first", name,
                  act_mode_names[act], settings[i].threads, settings[i].batch_tokens, ways[w].name);
            if (!is_first)
                free(r->out);
        }
        engine_close(r->e);
    }
}

static void check_logits(const char *name, const float *got, const float *want, size_t n, double tolerance)
{
    double worst = worst_difference(got, want, n);
    print_message("%s: max |logit difference| %.3g\n", name, worst);
    CHECK(worst <= tolerance, "%s: max |logit difference| %g, allowed %g", name, worst, tolerance);
}

static void test_golden_logits(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(golden_names); i++) {
        struct golden g;
        if (!golden_open(&g, golden_names[i]))
            skip();
        struct run r = { .ids = { g.ids[0], g.ids[1] }, .n = TOKENS, .vocab = g.m.config.vocab };
        float *first = mem_new(g.floats, sizeof *first, &err);
        same_bits_all_ways(golden_names[i], &r, ACT_F32, &g.m, first);
        check_logits(golden_names[i], first, g.logits, g.floats, 2e-4);
        /* These files hold bf16: every mode multiplies in f32. */
        r.e = engine_with(&g.m, ACT_I16, 2, 64);
        r.out = mem_new(g.floats, sizeof *r.out, &err);
        together(&r, TOKENS);
        CHECK(!memcmp(first, r.out, g.floats * sizeof *first), "%s: i16 differs from f32", golden_names[i]);
        engine_close(r.e);
        free(r.out);
        free(first);
        golden_close(&g);
    }
}

/* ---- every kernel set gives the same bits ---- */

static void test_kernel_sets_agree(void **state)
{
    (void)state;
    struct golden g;
    if (!golden_open(&g, "gemma4_moe"))
        skip();
    float *first = mem_new(g.floats, sizeof *first, &err), *other = mem_new(g.floats, sizeof *first, &err);
    for (int act = 0; act < ACT_COUNT; act++)
        for (int i = 0; engine_kernel_sets()[i]; i++) {
            if (!engine_kernel_supported(engine_kernel_sets()[i]))
                continue;
            struct engine_options o = { .act = (enum act_mode)act, .threads = 2, .kernels = engine_kernel_sets()[i] };
            struct run r = { .ids = { g.ids[0], g.ids[1] }, .n = TOKENS, .vocab = g.m.config.vocab };
            r.out = i ? other : first;
            MUST(engine_open(&r.e, &g.m, &o, &err));
            by_chunks(&r, TOKENS);
            CHECK(i == 0 || !memcmp(first, other, g.floats * sizeof *first), "%s: %s and %s differ", act_mode_names[act],
                  engine_kernel_sets()[0], o.kernels);
            engine_close(r.e);
        }
    free(first);
    free(other);
    golden_close(&g);
}

/* ---- sliding windows ---- */

/* Lengths around the window, tokens one by one against all at once; then far behind it, where K/V are given back. */
static void test_window_borders(void **state)
{
    (void)state;
    struct golden g;
    if (!golden_open(&g, "gemma3"))
        skip();
    int w = g.m.config.layers[0].window;
    const int lengths[] = { w - 1, w, w + 1, 2 * w + 3, 600 };
    int32_t ids[600];
    for (int i = 0; i < 600; i++)
        ids[i] = g.ids[i / TOKENS % SEQS][i % TOKENS];
    CHECK(w == 16 && g.m.config.layers[0].sliding, "window %d", w);
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        int n = lengths[i];
        size_t floats = (size_t)n * (size_t)g.m.config.vocab;
        float *whole = mem_new(2 * floats, sizeof *whole, &err), *single = mem_new(2 * floats, sizeof *single, &err);
        struct run r = { engine_with(&g.m, ACT_I16, 1, 512), { ids, ids }, n, g.m.config.vocab, whole };
        by_chunks(&r, n);
        r.out = single;
        by_chunks(&r, 1);
        CHECK(!memcmp(whole, single, floats * sizeof *whole), "%d tokens, window %d: one by one differs from all at once", n, w);
        through_prefixes(&r, n / 2);
        CHECK(!memcmp(whole, single, floats * sizeof *whole), "%d tokens, window %d: prefixes differ", n, w);
        after_truncation(&r, n / 3);        /* of 600: further back than what sliding layers keep */
        CHECK(!memcmp(whole, single, floats * sizeof *whole), "%d tokens, window %d: truncation differs", n, w);
        engine_close(r.e);
        free(whole);
        free(single);
    }
    golden_close(&g);
}

/* ---- many sequences on one prefix, a token each a call: the prefix is read once for all ---- */

static void test_shared_prefix(void **state)
{
    (void)state;
    enum { CHILDREN = 7, STEPS = 9 };
    static const char *const names[] = { "gemma3", "llama3", "gemma4_e" };
    static const int prefixes[] = { 64, 70, 15 };
    for (size_t m = 0; m < ARRAY_LEN(names); m++) {
        struct golden g;
        if (!golden_open(&g, names[m]))
            skip();
        size_t vocab = (size_t)g.m.config.vocab;
        float *alone = mem_new(STEPS * vocab, sizeof *alone, &err), *beside = mem_new(CHILDREN * STEPS * vocab, sizeof *beside, &err);
        float *step = mem_new(CHILDREN * vocab, sizeof *step, &err);
        for (size_t p = 0; p < ARRAY_LEN(prefixes); p++) {
            struct engine *e = engine_with(&g.m, ACT_I16, 2, 64);
            struct seq *prefix = seq_with(e, NULL), *child[CHILDREN];
            struct span spans[CHILDREN] = { { prefix, g.ids[0], prefixes[p], prefixes[p] } };
            MUST(engine_forward(e, spans, 1, NULL, &err));
            for (int i = 0; i < CHILDREN; i++)
                child[i] = seq_with(e, prefix);
            for (int t = 0; t < STEPS; t++) {
                for (int i = 0; i < CHILDREN; i++)
                    spans[i] = (struct span){ child[i], &g.ids[1][5 * i + t], 1, 0 };
                MUST(engine_forward(e, spans, CHILDREN, step, &err));
                for (int i = 0; i < CHILDREN; i++)
                    memcpy(beside + (size_t)(i * STEPS + t) * vocab, step + (size_t)i * vocab, vocab * sizeof *step);
            }
            for (int i = 0; i < CHILDREN; i++) {
                struct seq *s = seq_with(e, NULL);
                struct span span = { s, g.ids[0], prefixes[p], prefixes[p] };
                MUST(engine_forward(e, &span, 1, NULL, &err));
                feed_all(e, s, g.ids[1] + 5 * i, STEPS, alone);
                CHECK(!memcmp(alone, beside + (size_t)(i * STEPS) * vocab, STEPS * vocab * sizeof *alone),
                      "%s: child %d of a prefix of %d differs", names[m], i, prefixes[p]);
                seq_close(s);
                seq_close(child[i]);
            }
            seq_close(prefix);
            engine_close(e);
        }
        free(alone);
        free(beside);
        free(step);
        golden_close(&g);
    }
}

/* ---- stories260K: trained weights, GGUF and Hugging Face ---- */

enum { STORY_TOKENS = 64 };

static void story_ids(const char *path, int32_t *ids, int n)
{
    struct text t = { 0 };
    MUST(file_read(path, 0, &t, &err));
    char *p = t.data;
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)strtol(p, &p, 10);
    text_free(&t);
}

static void story_logits(const char *path, enum act_mode act, const int32_t *ids, float *out)
{
    struct model m;
    MUST(model_open(&m, path, false, &err));
    struct engine *e = engine_with(&m, act, 2, 0);
    struct seq *s = seq_with(e, NULL);
    feed_all(e, s, ids, STORY_TOKENS, out);
    seq_close(s);
    engine_close(e);
    model_close(&m);
}

static void test_stories(void **state)
{
    (void)state;
    enum { FLOATS = STORY_TOKENS * 512 };
    NEED_SHARED(gguf, "models/stories260K/gguf/stories260K-f32.gguf");
    NEED_SHARED(config, "models/stories260K/hf_f32/config.json");
    NEED_SHARED(tokens, "models/stories260K/golden/tinystories_sample.tokens.txt");
    NEED_SHARED(reference, "models/stories260K/golden/logits-float64-reference.f32");
    char folder[1024];
    folder_of(config, folder);
    int32_t ids[STORY_TOKENS];
    story_ids(tokens, ids, STORY_TOKENS);
    float *want = mem_new(FLOATS, sizeof *want, &err), *a = mem_new(FLOATS, sizeof *a, &err), *b = mem_new(FLOATS, sizeof *b, &err);
    read_into(reference, want, FLOATS * sizeof *want);
    for (int act = 0; act < ACT_COUNT; act++) {
        story_logits(gguf, (enum act_mode)act, ids, a);
        story_logits(folder, (enum act_mode)act, ids, b);
        check_logits("stories260K f32 GGUF", a, want, FLOATS, 1e-4);
        CHECK(!memcmp(a, b, FLOATS * sizeof *a), "%s: GGUF and Hugging Face folder differ", act_mode_names[act]);
    }
    free(want);
    free(a);
    free(b);
}

/* Integer weights: rounded activations must not depend on what stands beside them either; nor on repacking. */
static void test_quantized_files(void **state)
{
    (void)state;
    static const char *const types[] = { "q4_0", "q8_0", "q5_1" };
    for (size_t t = 0; t < ARRAY_LEN(types); t++) {
        char name[128];
        snprintf(name, sizeof name, "models/stories260K/gguf/stories260K-ffn192-%s.gguf", types[t]);
        NEED_SHARED(path, name);
        NEED_SHARED(tokens, "models/stories260K/golden/tinystories_sample.tokens.txt");
        struct model m;
        int32_t ids[SEQS * TOKENS];
        story_ids(tokens, ids, SEQS * TOKENS);
        MUST(model_open(&m, path, false, &err));
        struct run r = { .ids = { ids, ids + TOKENS }, .n = TOKENS, .vocab = m.config.vocab };
        size_t bytes = (size_t)SEQS * TOKENS * (size_t)r.vocab * sizeof(float);
        float *first = mem_new(bytes, 1, &err), *other = mem_new(bytes, 1, &err);
        for (int act = 0; act < ACT_COUNT; act++) {
            same_bits_all_ways(types[t], &r, (enum act_mode)act, &m, first);
            struct engine_options o = { .act = (enum act_mode)act, .threads = 2, .in_place = true };
            MUST(engine_open(&r.e, &m, &o, &err));
            r.out = other;
            together(&r, TOKENS);
            CHECK(!memcmp(first, other, bytes), "%s, %s: in place differs from repacked", types[t], act_mode_names[act]);
            engine_close(r.e);
        }
        free(first);
        free(other);
        model_close(&m);
    }
}

/* ---- errors leave sequences as they were ---- */

static void test_errors(void **state)
{
    (void)state;
    struct golden g;
    if (!golden_open(&g, "gemma4_e"))
        skip();
    struct engine *e = engine_with(&g.m, ACT_I16, 1, 16);
    int vocab = g.m.config.vocab, context = g.m.config.context;
    float *logits = mem_new(TOKENS * (size_t)vocab, sizeof *logits, &err), *again = mem_new(TOKENS * (size_t)vocab, sizeof *logits, &err);
    int32_t *many = mem_new((size_t)context, sizeof *many, &err), low = -1, high = vocab;
    struct seq *a = seq_with(e, NULL), *b = seq_with(e, NULL), *child;
    feed_all(e, a, g.ids[0], 40, logits);
    child = seq_with(e, a);
    const struct {
        struct span spans[2];
        int n;
        const char *says;
    } cases[] = {
        { { { b, g.ids[0], 5, 5 }, { child, &low, 1, 0 } }, 2, "token -1 at position 40" },
        { { { b, g.ids[0], 5, 5 }, { child, &high, 1, 0 } }, 2, "ids go from 0 to" },
        { { { b, g.ids[0], 5, 5 }, { child, many, context - 39, 0 } }, 2, "context" },
        { { { b, g.ids[0], 5, 5 }, { b, g.ids[0], 5, 5 } }, 2, "in this call already" },
        { { { a, g.ids[0], 1, 1 } }, 1, "cannot grow" },
        { { { b, g.ids[0], 5, 6 } }, 1, "logits from 6 of 5" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        CHECK(!engine_forward(e, cases[i].spans, cases[i].n, logits, &err), "case %zu passed", i);
        CHECK(strstr(err.text, cases[i].says), "case %zu: \"%s\" lacks \"%s\"", i, err.text, cases[i].says);
        CHECK(seq_length(a) == 40 && seq_length(b) == 0 && seq_length(child) == 40, "case %zu: lengths %d %d %d", i,
              seq_length(a), seq_length(b), seq_length(child));
    }
    feed_all(e, child, g.ids[0] + 40, 40, again);
    feed_all(e, b, g.ids[0], 80, logits);
    CHECK(!memcmp(again, logits + 40 * (size_t)vocab, 40 * (size_t)vocab * sizeof *logits), "logits differ after errors");
    seq_close(child);
    seq_close(a);
    seq_close(b);
    engine_close(e);
    free(logits);
    free(again);
    free(many);
    golden_close(&g);
}

static void test_memory_is_counted(void **state)
{
    (void)state;
    struct golden g;
    if (!golden_open(&g, "gemma3"))
        skip();
    struct engine *e = engine_with(&g.m, ACT_I16, 1, 64);
    uint64_t empty = engine_bytes(e), full = 0;
    /* 1200 tokens: 6 sliding layers hold window + kept positions, one full layer holds all. */
    struct seq *s = seq_with(e, NULL);
    for (int i = 0; i < 15; i++) {
        struct span p = { s, g.ids[0], TOKENS, TOKENS };
        MUST(engine_forward(e, &p, 1, NULL, &err));
        full = engine_bytes(e);
    }
    double block = 2.0 * 2 * 32 * 16 * sizeof(float), most = block * (76 + 6 * ((16 + 256 + 64) / 16 + 2));
    CHECK(empty > 0 && full > empty, "bytes %llu, then %llu", (unsigned long long)empty, (unsigned long long)full);
    CHECK((double)(full - empty) < most + 65536, "K/V of 1200 tokens take %llu bytes, expected at most %.0f",
          (unsigned long long)(full - empty), most);
    seq_close(s);
    engine_close(e);
    golden_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_logits),     cmocka_unit_test(test_kernel_sets_agree),
        cmocka_unit_test(test_window_borders),    cmocka_unit_test(test_stories),
        cmocka_unit_test(test_quantized_files),   cmocka_unit_test(test_shared_prefix),
        cmocka_unit_test(test_errors),            cmocka_unit_test(test_memory_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
