/* Greedy generation: the same ids and margins whatever else is generated beside a request. */
#include "engine_golden.h"

enum { PROMPTS = 5, MAX_NEW = 40 };

struct request {
    struct generation g;
    int stop_after;             /* tokens; 0: no stop callback */
    int calls;
};

struct feed {
    struct request r[PROMPTS];
    int given, taken;
};

static struct generation *next(void *ctx)
{
    struct feed *f = ctx;
    return f->given < PROMPTS ? &f->r[f->given++].g : NULL;
}

static bool done(void *ctx, struct generation *g, struct error *e)
{
    (void)g;
    (void)e;
    ((struct feed *)ctx)->taken++;
    return true;
}

static bool stop(void *ctx, const struct generation *g)
{
    struct request *r = ctx;
    r->calls++;
    return (int)g->out.n == r->stop_after;
}

static void prepare(struct feed *f, const struct golden *g, struct seq *prefix)
{
    *f = (struct feed){ 0 };
    for (int i = 0; i < PROMPTS; i++) {
        struct request *r = &f->r[i];
        r->g = (struct generation){ .prompt = g->ids[i % SEQS] + 3 * i, .n_prompt = 3 + 11 * i, .max_new = MAX_NEW - i };
        if (i == 2)
            r->stop_after = 7;
        if (i == 3)
            r->g.prefix = prefix;
        if (r->stop_after) {
            r->g.stop = stop;
            r->g.ctx = r;
        }
    }
}

static void run_feed(struct engine *e, struct feed *f, int width)
{
    struct generation_feed feed = { next, done, f, width };
    MUST(engine_generate(e, &feed, &err));
    CHECK(f->taken == PROMPTS, "%d of %d requests came back", f->taken, PROMPTS);
}

static void free_feed(struct feed *f)
{
    for (int i = 0; i < PROMPTS; i++)
        ids_free(&f->r[i].g.out);
}

static void check_same(const struct feed *a, const struct feed *b, const char *what)
{
    for (int i = 0; i < PROMPTS; i++) {
        const struct generation *x = &a->r[i].g, *y = &b->r[i].g;
        CHECK(x->finish == y->finish && x->out.n == y->out.n, "%s: request %d: finish %d after %zu, expected %d after %zu", what,
              i, y->finish, y->out.n, x->finish, x->out.n);
        CHECK(!x->out.n || !memcmp(x->out.data, y->out.data, x->out.n * sizeof *x->out.data), "%s: request %d: other ids", what, i);
        CHECK(!memcmp(&x->least_margin, &y->least_margin, sizeof x->least_margin), "%s: request %d: margin %.17g, expected %.17g",
              what, i, y->least_margin, x->least_margin);
    }
}

/* What generation must give, by engine_forward and logits_top alone. */
static void check_by_hand(struct engine *e, const struct generation *g)
{
    const struct model_config *c = (const struct model_config *)g->ctx;
    float *logits = mem_new((size_t)c->vocab, sizeof *logits, &err), first, second;
    struct seq *s = seq_with(e, g->prefix);
    struct span p = { s, g->prompt, g->n_prompt, g->n_prompt - 1 };
    double least = INFINITY;
    for (size_t i = 0; i < g->out.n; i++) {
        MUST(engine_forward(e, &p, 1, logits, &err));
        int32_t id = logits_top(logits, c->vocab, &first, &second);
        least = fmin(least, (double)first - (double)second);
        CHECK(id == g->out.data[i], "token %zu is %d, by hand %d", i, g->out.data[i], id);
        p = (struct span){ s, &g->out.data[i], 1, 0 };
    }
    CHECK_NEAR(g->least_margin, least, 0, "margin");
    seq_close(s);
    free(logits);
}

static void test_width_changes_nothing(void **state)
{
    (void)state;
    static const char *const names[] = { "gemma4_e", "qwen3_moe", "llama3" };
    for (size_t m = 0; m < ARRAY_LEN(names); m++) {
        struct golden g;
        if (!golden_open(&g, names[m]))
            skip();
        g.m.config.n_stop = 0;
        g.m.config.eos = -1;
        struct feed first, other;
        static const struct { int width, threads, batch; } ways[] = { { 1, 1, 512 }, { 2, 2, 512 }, { 5, 2, 512 }, { 5, 1, 3 }, { 3, 2, 1 } };
        for (size_t w = 0; w < ARRAY_LEN(ways); w++) {
            struct engine *e = engine_with(&g.m, ACT_I16, ways[w].threads, ways[w].batch);
            struct seq *prefix = seq_with(e, NULL);
            struct span p = { prefix, g.ids[1], 21, 21 };
            MUST(engine_forward(e, &p, 1, NULL, &err));
            prepare(w ? &other : &first, &g, prefix);
            run_feed(e, w ? &other : &first, ways[w].width);
            if (w) {
                check_same(&first, &other, names[m]);
                free_feed(&other);
            } else {
                CHECK(first.r[2].g.finish == FINISH_STOP && first.r[2].g.out.n == 7 && first.r[2].calls == 7, "stop callback");
                CHECK(first.r[0].g.finish == FINISH_LENGTH && first.r[0].g.out.n == MAX_NEW, "length");
                CHECK(first.r[0].g.elapsed_ns > 0, "no time charged");
                first.r[4].g.ctx = &g.m.config;
                check_by_hand(e, &first.r[4].g);
            }
            seq_close(prefix);
            engine_close(e);
        }
        free_feed(&first);
        golden_close(&g);
    }
}

/* Make the token that comes out at position 5 a stop id: it ends the text and is not part of it. */
static void test_eos_ends(void **state)
{
    (void)state;
    struct golden g;
    if (!golden_open(&g, "qwen2"))
        skip();
    g.m.config.n_stop = 0;
    g.m.config.eos = -1;
    struct feed free_run, f;
    struct engine *e = engine_with(&g.m, ACT_I16, 2, 0);
    prepare(&free_run, &g, NULL);
    run_feed(e, &free_run, 5);
    const struct ids *out = &free_run.r[1].g.out;
    g.m.config.stop_ids[0] = out->data[5];
    g.m.config.n_stop = 1;
    size_t want = 0;
    while (out->data[want] != out->data[5])
        want++;
    prepare(&f, &g, NULL);
    run_feed(e, &f, 2);
    CHECK(f.r[1].g.finish == FINISH_EOS && f.r[1].g.out.n == want, "finish %d after %zu, expected EOS after %zu", f.r[1].g.finish,
          f.r[1].g.out.n, want);
    free_feed(&free_run);
    free_feed(&f);
    engine_close(e);
    golden_close(&g);
}

/* ---- limits ---- */

struct one {
    struct generation g;
    bool given;
    bool refuse;
};

static struct generation *next_one(void *ctx)
{
    struct one *o = ctx;
    bool first = !o->given;
    o->given = true;
    return first ? &o->g : NULL;
}

static bool done_one(void *ctx, struct generation *g, struct error *e)
{
    (void)g;
    return !((struct one *)ctx)->refuse || fail(e, STATUS_IO, "disk full");
}

static void test_limits(void **state)
{
    (void)state;
    struct golden g;
    if (!golden_open(&g, "llama3"))
        skip();
    g.m.config.context = 50;
    g.m.config.n_stop = 0;
    g.m.config.eos = -1;
    struct engine *e = engine_with(&g.m, ACT_I16, 1, 0);
    const struct {
        int n_prompt, max_new;
        bool refuse, ok;
        const char *says;
        size_t tokens;
    } cases[] = {
        { 40, 100, false, true, "", 11 },       /* the last token needs no room: it is never fed */
        { 50, 100, false, true, "", 1 },
        { 51, 1, false, false, "context of 50", 0 },
        { 0, 1, false, false, "at least one token", 0 },
        { 10, 0, false, true, "", 0 },
        { 10, 2, true, false, "disk full", 2 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct one o = { .g = { .prompt = g.ids[0], .n_prompt = cases[i].n_prompt, .max_new = cases[i].max_new }, .refuse = cases[i].refuse };
        struct generation_feed feed = { next_one, done_one, &o, 0 };
        bool ok = engine_generate(e, &feed, &err);
        CHECK(ok == cases[i].ok, "case %zu: %s", i, ok ? "passed" : err.text);
        CHECK(ok || strstr(err.text, cases[i].says), "case %zu: \"%s\" lacks \"%s\"", i, err.text, cases[i].says);
        CHECK(o.g.out.n == cases[i].tokens, "case %zu: %zu tokens, expected %zu", i, o.g.out.n, cases[i].tokens);
        CHECK(!ok || o.g.finish == FINISH_LENGTH, "case %zu: finish %d", i, o.g.finish);
        CHECK(cases[i].tokens || isnan(o.g.least_margin) || !ok, "case %zu: margin %g of no token", i, o.g.least_margin);
        ids_free(&o.g.out);
    }
    engine_close(e);
    golden_close(&g);
}

/* llama2.c's own text of this model, through the model's tokenizer. */
static void test_story_text(void **state)
{
    (void)state;
    NEED_SHARED(gguf, "models/stories260K/gguf/stories260K-f32.gguf");
    NEED_SHARED(golden, "models/stories260K/golden/greedy_256_llama2c.txt");
    struct model m;
    struct text want = { 0 }, got = { 0 };
    struct ids prompt = { 0 };
    MUST(model_open(&m, gguf, true, &err));
    MUST(file_read(golden, 0, &want, &err));
    CHECK(m.tokenizer, "no tokenizer: %s", m.tokenizer_error);
    struct engine *e = engine_with(&m, ACT_F32, 1, 0);
    MUST(ids_add(&prompt, m.config.bos, &err));
    struct one o = { .g = { .prompt = prompt.data, .n_prompt = 1, .max_new = 255 } };
    struct generation_feed feed = { next_one, done_one, &o, 1 };
    MUST(engine_generate(e, &feed, &err));
    tokenizer_decode_all(m.tokenizer, o.g.out.data, o.g.out.n, &got);
    while (want.len && want.data[want.len - 1] == '\n')
        want.data[--want.len] = 0;
    CHECK(got.len >= 400 && str_starts(text_str(&want), "Once"), "%zu bytes of text: %s", got.len, text_str(&got));
    size_t n = got.len < want.len ? got.len : want.len;
    CHECK(!memcmp(got.data, want.data, n) && want.len - n < 8, "got:\n%s\nwant:\n%s", text_str(&got), text_str(&want));
    ids_free(&o.g.out);
    ids_free(&prompt);
    text_free(&got);
    text_free(&want);
    engine_close(e);
    model_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_width_changes_nothing), cmocka_unit_test(test_eos_ends),
        cmocka_unit_test(test_limits),                cmocka_unit_test(test_story_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
