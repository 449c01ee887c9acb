/* Perplexity and KL divergence against llama-perplexity's figures for the same files and text. */
#include "check.h"

#include "eval/eval.h"

static struct error err;

struct figures {
    double ppl, ppl_se, kld, kld_se, kld_max, kld_median, dp, dp_se, dp_rms, top, top_se;
};

static double line_value(const char *from, const char *label, int nth)
{
    const char *p = strstr(from, label);
    CHECK(p, "no \"%s\" in the golden file", label);
    p = strchr(p, ':') + 1;
    char *end;
    double v = strtod(p, &end);
    for (; nth; nth--) {
        end += strcspn(end, "0123456789\n");
        v = strtod(end, &end);
    }
    return v;
}

/* The block "== NAME" of llama_cpp_ppl_kld.txt. */
static struct figures golden(const char *text, const char *name)
{
    char mark[32];
    snprintf(mark, sizeof mark, "== %s\n", name);
    const char *p = strstr(text, mark);
    CHECK(p, "no block %s", name);
    return (struct figures){ line_value(p, "Mean PPL(Q) ", 0), line_value(p, "Mean PPL(Q) ", 1), line_value(p, "Mean    KLD", 0),
                             line_value(p, "Mean    KLD", 1), line_value(p, "Maximum KLD", 0), line_value(p, "Median  KLD", 0),
                             line_value(p, "Mean    \xCE\x94p", 0), line_value(p, "Mean    \xCE\x94p", 1), line_value(p, "RMS \xCE\x94p", 0),
                             line_value(p, "Same top p:", 0), line_value(p, "Same top p:", 1) };
}

struct side {
    struct model m;
    struct engine *e;
};

static void side_open(struct side *s, const char *file, enum act_mode act)
{
    char name[200];
    snprintf(name, sizeof name, "models/stories260K/gguf/%s", file);
    struct engine_options o = { .act = act, .threads = 2 };
    *s = (struct side){ 0 };
    MUST(model_open(&s->m, shared_data(name), true, &err));
    MUST(engine_open(&s->e, &s->m, &o, &err));
}

static void side_close(struct side *s)
{
    engine_close(s->e);
    model_close(&s->m);
}

struct bounds {
    double kld_rel, kld_abs, ppl_rel, top;
};

static void check_figures(const char *what, const struct kld_result *r, const struct figures *g, const struct bounds *b)
{
    CHECK_NEAR(r->ppl, g->ppl, g->ppl * b->ppl_rel, "%s ppl", what);
    CHECK_NEAR(r->ppl_se, g->ppl_se, g->ppl_se * 0.012, "%s ppl se", what);
    CHECK_NEAR(r->kld_mean, g->kld, g->kld * b->kld_rel + b->kld_abs, "%s KLD", what);
    CHECK_NEAR(r->kld_se, g->kld_se, g->kld_se * 0.08 + 8e-6, "%s KLD se", what);
    CHECK_NEAR(r->kld_percentiles[6], g->kld_max, g->kld_max * 0.3 + 4e-3, "%s largest KLD", what);
    CHECK_NEAR(r->kld_percentiles[3], g->kld_median, g->kld_median * 0.16 + 3e-5, "%s median KLD", what);
    CHECK_NEAR(100 * r->delta_p_mean, g->dp, 0.06, "%s mean delta p", what);
    CHECK_NEAR(100 * r->delta_p_se, g->dp_se, g->dp_se * 0.05 + 0.004, "%s se of mean delta p", what);
    CHECK_NEAR(100 * r->delta_p_rms, g->dp_rms, g->dp_rms * 0.03 + 0.1, "%s rms delta p", what);
    CHECK_NEAR(100 * r->same_top, g->top, b->top, "%s same top", what);
}

/* Our own recording has F32 K/V, as we do; what is left is llama.cpp's base file (16 bits, clipped at 16 nats under
 * the top: the KLD of f16 drowns in it) and its sums of quantized products in another order.  The shared recording
 * has an F16 cache as well.  llama.cpp rounds activations to BF16 against BF16 weights, we do not.  Quantized types run in act mode q8, which rounds activations as llama.cpp does. */
static void test_against_llama(void **state)
{
    (void)state;
    static const struct {
        const char *file, *name;
        struct bounds own, shared;
    } files[] = {
        { "stories260K-ffn192-f16.gguf", "F16", { 0, 3e-6, 1e-4, 0.12 }, { 0, 1e-5, 3e-4, 0.3 } },
        { "stories260K-ffn192-bf16.gguf", "BF16", { 0.35, 0, 1e-3, 0.5 }, { 0.45, 0, 1e-3, 0.5 } },
        { "stories260K-ffn192-q8_0.gguf", "Q8_0", { 0.05, 0, 5e-3, 0.7 }, { 0.06, 0, 6e-3, 0.7 } },
        { "stories260K-ffn192-q4_0.gguf", "Q4_0", { 0.04, 0, 5e-3, 0.8 }, { 0.05, 0, 6e-3, 1.0 } },
        { "stories260K-ffn192-q5_1.gguf", "Q5_1", { 0.04, 0, 5e-3, 0.8 }, { 0.06, 0, 6e-3, 1.4 } },
    };
    NEED_SHARED(golden_path, "models/stories260K/golden/llama_cpp_ppl_kld.txt");
    NEED_SHARED(text_path, "models/stories260K/golden/tinystories_sample.txt");
    struct text shared = { 0 }, own = { 0 }, sample = { 0 };
    MUST(file_read(golden_path, 0, &shared, &err));
    MUST(file_read("tests/golden/eval/llama-perplexity-f32kv.txt", 0, &own, &err));
    MUST(file_read(text_path, 0, &sample, &err));
    struct side base;
    struct ids ids = { 0 };
    side_open(&base, "stories260K-ffn192-f32.gguf", ACT_F32);
    MUST(tokenizer_encode(base.m.tokenizer, sample.data, sample.len, false, false, &ids, &err));
    struct kld_result r;
    MUST(eval_kld(base.e, base.e, &base.m, ids.data, ids.n, 256, &r, &err));
    CHECK(r.chunks == 7 && r.tokens == 7 * 127, "%lld windows, %lld tokens", (long long)r.chunks, (long long)r.tokens);
    CHECK_NEAR(r.ppl, 6.8979, 6e-5, "perplexity of f32");
    CHECK_NEAR(r.ppl_se, 0.77027, 6e-6, "its standard error");
    CHECK(r.kld_mean == 0 && r.same_top == 1 && r.delta_p_rms == 0, "f32 against itself: KLD %g", r.kld_mean);
    free(r.kld_per_token);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        struct figures g = golden(own.data, files[i].name), h = golden(shared.data, files[i].name);
        struct side other;
        side_open(&other, files[i].file, ACT_Q8);
        MUST(eval_kld(base.e, other.e, &base.m, ids.data, ids.n, 256, &r, &err));
        printf("note: %s ppl %.4f (%.4f), KLD %.6f (%.6f), same top %.3f (%.3f); llama.cpp's in brackets\n", files[i].name, r.ppl, g.ppl,
               r.kld_mean, g.kld, 100 * r.same_top, g.top);
        check_figures(files[i].name, &r, &g, &files[i].own);
        check_figures(files[i].name, &r, &h, &files[i].shared);
        free(r.kld_per_token);
        side_close(&other);
    }
    side_close(&base);
    ids_free(&ids);
    text_free(&shared);
    text_free(&own);
    text_free(&sample);
}

/* The same bits for any number of threads; too short a text says so. */
static void test_threads_and_errors(void **state)
{
    (void)state;
    NEED_SHARED(path, "models/stories260K/gguf/stories260K-f32.gguf");
    (void)path;
    int32_t ids[100];
    for (int i = 0; i < 100; i++)
        ids[i] = 3 + i * 7 % 500;
    struct side base, other;
    side_open(&base, "stories260K-f32.gguf", ACT_I16);
    side_open(&other, "stories260K-ffn192-q4_0.gguf", ACT_I16);
    struct kld_result first = { 0 };
    for (int threads = 1; threads <= 2; threads++) {
        struct engine_options o = { .act = ACT_I16, .threads = threads };
        struct engine *a, *b;
        struct kld_result r;
        MUST(engine_open(&a, &base.m, &o, &err));
        MUST(engine_open(&b, &other.m, &o, &err));
        MUST(eval_kld(a, b, &base.m, ids, 100, 32, &r, &err));
        CHECK(r.chunks == 3 && r.tokens == 45, "%lld windows", (long long)r.chunks);
        if (threads == 2) {
            CHECK(memcmp(r.kld_per_token, first.kld_per_token, 45 * sizeof(float)) == 0 && r.kld_mean == first.kld_mean, "KLD %a, with one thread %a",
                  r.kld_mean, first.kld_mean);
            free(first.kld_per_token);
            free(r.kld_per_token);
        } else
            first = r;
        engine_close(a);
        engine_close(b);
    }
    struct kld_result r;
    CHECK(!eval_kld(base.e, other.e, &base.m, ids, 20, 64, &r, &err) && strstr(err.text, "21 tokens") && strstr(err.text, "64"), "%s", err.text);
    CHECK(!eval_kld(base.e, other.e, &base.m, ids, 100, 1024, &r, &err) && strstr(err.text, "1024"), "%s", err.text);
    side_close(&base);
    side_close(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_llama),
        cmocka_unit_test(test_threads_and_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
