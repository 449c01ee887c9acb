/* Layer by layer: against the reference's hidden states, against the forward pass, taps and replaced tensors. */
#include "engine_golden.h"

static const struct model_config *config(const struct golden *g)
{
    return &g->m.config;
}

static float *stream_embed(struct engine *e, const struct golden *g, int n_seqs, float **ple)
{
    size_t rows = (size_t)n_seqs * TOKENS, wide = (size_t)config(g)->n_layers * (size_t)config(g)->ple_size;
    float *x = mem_new(rows * (size_t)config(g)->hidden, sizeof *x, &err);
    *ple = wide ? mem_new(rows * wide, sizeof **ple, &err) : NULL;
    MUST(engine_stream_embed(e, g->ids[0], n_seqs, TOKENS, x, *ple, &err));
    return x;
}

/* hidden_seq0.f32: the stream before each layer, the last one after the final norm. */
static void test_hidden_states(void **state)
{
    (void)state;
    for (int m = 0; m < GOLDEN_COUNT; m++) {
        struct golden g;
        const char *path = golden_path(golden_names[m], "hidden_seq0.f32");
        if (!path || !golden_open(&g, golden_names[m]))
            skip();
        size_t floats = (size_t)TOKENS * (size_t)config(&g)->hidden;
        float *want = mem_new(floats * (size_t)(config(&g)->n_layers + 1), sizeof *want, &err), *ple;
        read_into(path, want, floats * (size_t)(config(&g)->n_layers + 1) * sizeof *want);
        struct engine *e = engine_with(&g.m, ACT_F32, 2, 50);
        float *x = stream_embed(e, &g, 1, &ple);
        for (int l = 0; l < config(&g)->n_layers; l++) {
            double worst = worst_difference(x, want + (size_t)l * floats, floats);
            CHECK(worst <= 2e-4, "%s: before layer %d the stream is %g off", golden_names[m], l, worst);
            MUST(engine_stream_layer(e, l, 1, TOKENS, x, ple, &err));
        }
        free(want);
        free(x);
        free(ple);
        engine_close(e);
        golden_close(&g);
    }
}

/* One model in two engines of different threads and micro-batches, each with a stream of its own. */
struct twins {
    struct golden g;
    struct engine *a, *b;
    float *x, *y, *ple, *ple_b;
};

static bool twins_open(struct twins *t, const char *name)
{
    if (!golden_open(&t->g, name))
        return false;
    t->a = engine_with(&t->g.m, ACT_I16, 2, 64);
    t->b = engine_with(&t->g.m, ACT_I16, 1, 7);
    t->x = stream_embed(t->a, &t->g, SEQS, &t->ple);
    t->y = stream_embed(t->b, &t->g, SEQS, &t->ple_b);
    return true;
}

static void twins_close(struct twins *t)
{
    free(t->x);
    free(t->y);
    free(t->ple);
    free(t->ple_b);
    engine_close(t->a);
    engine_close(t->b);
    golden_close(&t->g);
}

/* The stream behind the last layer gives the logits of the forward pass, whatever the micro-batch. */
static void check_logits(struct twins *t, const char *name)
{
    size_t floats = (size_t)TOKENS * (size_t)config(&t->g)->vocab;
    float *want = mem_new(floats, sizeof *want, &err), *got = mem_new(floats, sizeof *got, &err);
    struct seq *s = seq_with(t->a, NULL);
    feed_all(t->a, s, t->g.ids[0], TOKENS, want);
    MUST(engine_stream_logits(t->b, TOKENS, t->x, got, &err));
    CHECK(!memcmp(want, got, floats * sizeof *got), "%s: logits are %g off", name, worst_difference(want, got, floats));
    seq_close(s);
    free(want);
    free(got);
}

/* Two sequences at once, or one a call under group numbers, in two micro-batch sizes: the same stream. */
static void test_stream_is_invariant(void **state)
{
    (void)state;
    static const char *const names[] = { "gemma4_e", "gemma4_moe", "smollm3" };
    for (size_t m = 0; m < ARRAY_LEN(names); m++) {
        struct twins t;
        if (!twins_open(&t, names[m]))
            skip();
        const struct model_config *c = config(&t.g);
        size_t d = (size_t)c->hidden, wide = (size_t)c->n_layers * (size_t)c->ple_size;
        for (int l = 0; l < c->n_layers; l++) {
            MUST(engine_stream_layer(t.a, l, SEQS, TOKENS, t.x, t.ple, &err));
            for (int s = 0; s < SEQS; s++) {
                size_t row = (size_t)s * TOKENS;
                engine_stream_group(t.b, s);
                MUST(engine_stream_layer(t.b, l, 1, TOKENS, t.y + row * d, t.ple_b ? t.ple_b + row * wide : NULL, &err));
            }
            CHECK(!memcmp(t.x, t.y, SEQS * TOKENS * d * sizeof *t.x), "%s: layer %d differs", names[m], l);
        }
        check_logits(&t, names[m]);
        twins_close(&t);
    }
}

struct kept {                   /* rows that a tap was shown, one after another */
    float *rows;
    size_t n, most;
    const char *suffix;         /* of what may be shown */
};

static void keep(void *ctx, const char *name, int expert, const float *x, int n, int64_t cols, size_t ld)
{
    struct kept *k = ctx;
    CHECK(expert < 0 && str_ends(name, k->suffix), "%s was shown, expected %s", name, k->suffix);
    for (int i = 0; i < n; i++, k->n += (size_t)cols) {
        CHECK(k->n + (size_t)cols <= k->most, "%s: too many rows", name);
        memcpy(k->rows + k->n, x + (size_t)i * ld, (size_t)cols * sizeof *x);
    }
}

static void run_part(struct engine *e, int layer, enum layer_step from, enum layer_step to, struct kept *in, struct kept *out,
                     float *x, const float *ple)
{
    const struct engine_tap tap = { keep, out };
    const struct layer_part part = { from, to, in ? in->rows : NULL };
    engine_set_tap(e, out ? &tap : NULL);
    MUST(engine_stream_part(e, layer, &part, SEQS, TOKENS, x, ple, &err));
    engine_set_tap(e, NULL);
}

/* A layer step by step, going on with what the tap was shown or from the stream: the bits of the whole layer. */
static void test_parts_make_a_layer(void **state)
{
    (void)state;
    static const char *const names[] = { "gemma4_e", "gemma4_moe", "qwen3_moe", "smollm3" };
    for (size_t m = 0; m < ARRAY_LEN(names); m++) {
        struct twins t;
        if (!twins_open(&t, names[m]))
            skip();
        size_t floats = (size_t)SEQS * TOKENS * (size_t)config(&t.g)->hidden;
        struct engine *b = t.b;
        float *y = t.y, *ple_b = t.ple_b;
        float *before = mem_new(floats, sizeof *before, &err);
        for (int l = 0; l < config(&t.g)->n_layers; l++) {
            const struct layer_config *c = &config(&t.g)->layers[l];
            size_t wide = (size_t)config(&t.g)->n_heads * (size_t)c->head_size, most = SEQS * TOKENS * (wide + (size_t)c->ffn_size);
            struct kept o = { mem_new(most, sizeof(float), &err), 0, most, "attn_output.weight" }, down = o;
            down.suffix = "ffn_down.weight";
            memcpy(before, y, floats * sizeof *y);
            run_part(b, l, STEP_QKV, STEP_O, NULL, &o, y, ple_b);
            CHECK(o.n == SEQS * TOKENS * wide && !memcmp(before, y, floats * sizeof *y), "%s layer %d: before o the stream moved", names[m], l);
            run_part(b, l, STEP_O, STEP_FFN, &o, NULL, y, ple_b);
            enum layer_step rest = ple_b ? STEP_PLE_GATE : STEP_END;
            if (c->moe == MOE_NONE) {
                run_part(b, l, STEP_FFN, STEP_DOWN, NULL, &down, y, ple_b);
                run_part(b, l, STEP_DOWN, rest, &down, NULL, y, ple_b);
            } else {
                run_part(b, l, STEP_FFN, STEP_DOWN, NULL, NULL, y, ple_b);
                run_part(b, l, STEP_FFN, rest, NULL, NULL, y, ple_b);
                const struct layer_part part = { STEP_DOWN, STEP_END, o.rows };
                CHECK(!engine_stream_part(b, l, &part, SEQS, TOKENS, y, ple_b, &err), "%s: experts went on from one input", names[m]);
            }
            if (ple_b)
                run_part(b, l, STEP_PLE_GATE, STEP_END, NULL, NULL, y, ple_b);
            MUST(engine_stream_layer(t.a, l, SEQS, TOKENS, t.x, t.ple, &err));
            CHECK(!memcmp(t.x, y, floats * sizeof *y), "%s: layer %d in parts differs", names[m], l);
            free(o.rows);
        }
        free(before);
        twins_close(&t);
    }
}

struct seen {
    int calls, experts, rows;
    double sum;
    const char *only;           /* sum the rows shown for this name */
};

static void see(void *ctx, const char *name, int expert, const float *x, int n, int64_t cols, size_t ld)
{
    struct seen *s = ctx;
    s->calls++;
    s->experts += expert >= 0;
    if (strcmp(name, s->only) != 0)
        return;
    s->rows += n;
    for (int i = 0; i < n; i++)
        for (int64_t j = 0; j < cols; j++)
            s->sum += (double)x[(size_t)i * ld + (size_t)j];
}

static void test_taps_see_inputs(void **state)
{
    (void)state;
    struct golden g;
    if (!golden_open(&g, "gemma4_moe"))
        skip();
    struct seen gate = { .only = "blk.1.ffn_gate_up_exps.weight" }, q = { .only = "blk.0.attn_q.weight" };
    struct engine *e = engine_with(&g.m, ACT_I16, 2, 64);
    const struct engine_tap taps[] = { { see, &gate }, { see, &q } };
    for (int i = 0; i < 2; i++) {
        float *ple, *x = stream_embed(e, &g, SEQS, &ple);
        engine_set_tap(e, &taps[i]);
        for (int l = 0; l < 2; l++)
            MUST(engine_stream_layer(e, l, SEQS, TOKENS, x, ple, &err));
        engine_set_tap(e, NULL);
        free(x);
    }
    CHECK(gate.rows == SEQS * TOKENS * config(&g)->layers[1].n_experts_used, "experts of layer 1 saw %d rows", gate.rows);
    CHECK(q.rows == SEQS * TOKENS && gate.experts > 0, "q saw %d rows, %d expert calls", q.rows, gate.experts);
    CHECK(isfinite(gate.sum) && isfinite(q.sum) && q.sum != 0, "sums %g %g", gate.sum, q.sum);
    engine_close(e);
    golden_close(&g);
}

/* A replaced matrix is used, and putting the old one back gives the old bits. */
static void test_replace(void **state)
{
    (void)state;
    struct golden g;
    if (!golden_open(&g, "llama3"))
        skip();
    static const char *const names[] = { "blk.1.ffn_down.weight", "blk.0.attn_norm.weight", "token_embd.weight", "output_norm.weight" };
    struct engine *e = engine_with(&g.m, ACT_I16, 2, 64);
    size_t floats = (size_t)TOKENS * (size_t)config(&g)->vocab;
    float *before = mem_new(floats, sizeof *before, &err), *after = mem_new(floats, sizeof *after, &err);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const struct tensor *old = model_find(&g.m, names[i]);
        CHECK(old, "no %s", names[i]);
        int64_t rows = old->rows, cols = old->cols;
        float *zero = mem_new((size_t)(rows * cols), sizeof *zero, &err);
        struct tensor t = { .name = names[i], .format = FORMAT_F32, .cols = cols, .rows = rows, .mats = 1, .data = zero,
                            .bytes = (uint64_t)(rows * cols) * sizeof *zero };
        for (int turn = 0; turn < 3; turn++) {
            struct seq *s = seq_with(e, NULL);
            if (turn)
                MUST(engine_replace(e, turn == 1 ? &t : old, &err));
            feed_all(e, s, g.ids[0], TOKENS, turn ? after : before);
            CHECK(turn != 1 || memcmp(before, after, floats * sizeof *after), "zeros for %s changed nothing", names[i]);
            CHECK(turn != 2 || !memcmp(before, after, floats * sizeof *after), "%s put back: other logits", names[i]);
            seq_close(s);
        }
        t.cols++;
        CHECK(!engine_replace(e, &t, &err) && strstr(err.text, "expected ["), "wrong shape: %s", err.text);
        free(zero);
    }
    struct tensor unknown = { .name = "blk.9.nothing" };
    CHECK(!engine_replace(e, &unknown, &err) && strstr(err.text, "no such tensor"), "unknown name: %s", err.text);
    free(before);
    free(after);
    engine_close(e);
    golden_close(&g);
}

static void test_stream_errors(void **state)
{
    (void)state;
    struct golden g;
    if (!golden_open(&g, "gemma4_e"))
        skip();
    struct engine *e = engine_with(&g.m, ACT_I16, 1, 64);
    float *ple, *x = stream_embed(e, &g, 1, &ple);
    int last = config(&g)->n_layers - 1;
    int32_t bad[2] = { 1, config(&g)->vocab };
    CHECK(!engine_stream_layer(e, last, 1, TOKENS, x, ple, &err) && strstr(err.text, "reads the K/V of layer"), "%s", err.text);
    CHECK(!engine_stream_layer(e, last + 1, 1, TOKENS, x, ple, &err), "layer beyond the last");
    CHECK(!engine_stream_layer(e, 0, 1, TOKENS, x, NULL, &err) && strstr(err.text, "per-layer"), "%s", err.text);
    CHECK(!engine_stream_embed(e, bad, 1, 2, x, ple, &err) && strstr(err.text, "ids go from 0"), "%s", err.text);
    free(x);
    free(ple);
    engine_close(e);
    golden_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hidden_states), cmocka_unit_test(test_stream_is_invariant),
        cmocka_unit_test(test_parts_make_a_layer), cmocka_unit_test(test_taps_see_inputs), cmocka_unit_test(test_replace),
        cmocka_unit_test(test_stream_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
