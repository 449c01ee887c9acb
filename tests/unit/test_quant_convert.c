/* Files written by convert and quantize, opened again: same logits to the bit, same bytes for any thread count,
 * and what must be refused. */
#include "scratch.h"

#include "engine/engine.h"
#include "quantizers.h"

static float *logits_of(const struct model *m, const int32_t *ids, int n)
{
    struct error err;
    struct engine *e;
    struct seq *s;
    struct engine_options o = { .act = ACT_F32, .threads = 2 };
    MUST(engine_open(&e, m, &o, &err));
    MUST(seq_open(&s, e, NULL, &err));
    float *out = mem_new((size_t)n * (size_t)m->config.vocab, sizeof *out, &err);
    assert_non_null(out);
    struct span span = { s, ids, n, 0 };
    MUST(engine_forward(e, &span, 1, out, &err));
    seq_close(s);
    engine_close(e);
    return out;
}

static const char *const archs[] = { "gemma2", "gemma3", "gemma4_dense", "gemma4_e", "gemma4_moe", "llama3", "qwen2", "qwen3", "qwen3_moe", "smollm3" };

/* Hugging Face folder -> GGUF: nothing that a logit could notice changes. */
static void test_round_trip(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(archs); i++) {
        struct error err;
        struct model hf, gguf;
        struct quantize_options o = { .threads = 2 };
        struct quantize_report report;
        char name[64];
        snprintf(name, sizeof name, "models/tiny_golden/%s/config.json", archs[i]);
        NEED_SHARED(config, name);
        char folder[1024];
        folder_of(config, folder);
        MUST(model_open(&hf, folder, false, &err));
        MUST(convert_model(&hf, in_dir("a.gguf"), NULL, &o, &report, &err));
        CHECK(report.n == hf.n_tensors && report.bytes_out > 0, "%s: %d rows", archs[i], report.n);
        quantize_report_free(&report);
        MUST(model_open(&gguf, in_dir("a.gguf"), false, &err));
        int32_t ids[40];
        for (int k = 0; k < 40; k++)
            ids[k] = (k * 37 + 2) % hf.config.vocab;
        float *want = logits_of(&hf, ids, 40), *got = logits_of(&gguf, ids, 40);
        for (int k = 0; k < 40 * hf.config.vocab; k++)
            CHECK(memcmp(&want[k], &got[k], sizeof(float)) == 0, "%s: logit %d is %.9g from the folder, %.9g from the GGUF", archs[i], k,
                  (double)want[k], (double)got[k]);
        free(want);
        free(got);
        model_close(&hf);
        model_close(&gguf);
        unlink(in_dir("a.gguf"));
    }
}

static bool run(const struct model *m, const char *method, const char *out, int threads, bool again, struct error *err)
{
    struct quantize_options o = { .method = method, .threads = threads, .requantize = again, .program_version = "test" };
    struct quantize_report report;
    bool ok = quantize_model(m, out, &o, &report, err);
    if (ok)
        quantize_report_free(&report);
    return ok;
}

static void test_threads(void **state)
{
    (void)state;
    static const char *const methods[] = { "rtn:q4_0", "rtn:q4_k_m", "rtn:iq4_nl", "lattice:q4_0" };
    struct error err;
    struct model m;
    NEED_SHARED(path, "models/stories260K/gguf/stories260K-ffn192-f32.gguf");
    MUST(model_open(&m, path, false, &err));
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        struct mapping a = { 0 }, b = { 0 };
        MUST(run(&m, methods[i], in_dir("one.gguf"), 1, false, &err));
        MUST(run(&m, methods[i], in_dir("four.gguf"), 4, false, &err));
        MUST(mapping_open(&a, in_dir("one.gguf"), &err));
        MUST(mapping_open(&b, in_dir("four.gguf"), &err));
        CHECK(a.size == b.size && memcmp(a.data, b.data, a.size) == 0, "%s differs between 1 and 4 threads", methods[i]);
        mapping_close(&a);
        mapping_close(&b);
    }
    model_close(&m);
    unlink(in_dir("one.gguf"));
    unlink(in_dir("four.gguf"));
}

/* llama-quantize (build 10587) made these with its embedding rule overridden to Q8_0, which the width forces anyway. */
static void test_files_equal_llama_quantize(void **state)
{
    (void)state;
    static const char *const types[] = { "q4_0", "q8_0", "q4_1", "q5_0", "q5_1", "iq4_nl", "f16", "bf16" };
    struct error err;
    struct model m;
    NEED_SHARED(path, "models/stories260K/gguf/stories260K-ffn192-f32.gguf");
    MUST(model_open(&m, path, false, &err));
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        char name[80], method[32];
        struct model ours, theirs;
        snprintf(name, sizeof name, "models/stories260K/gguf/stories260K-ffn192-%s.gguf", types[i]);
        snprintf(method, sizeof method, "rtn:%s", types[i]);
        NEED_SHARED(their_path, name);
        MUST(run(&m, method, in_dir("a.gguf"), 2, false, &err));
        MUST(model_open(&ours, in_dir("a.gguf"), false, &err));
        MUST(model_open(&theirs, their_path, false, &err));
        CHECK(ours.n_tensors == theirs.n_tensors, "%s: %d tensors, %d", types[i], ours.n_tensors, theirs.n_tensors);
        for (int k = 0; k < ours.n_tensors; k++) {
            const struct tensor *a = &ours.tensors[k], *b = model_find(&theirs, a->name);
            CHECK(b && a->format == b->format && a->bytes == b->bytes && memcmp(a->data, b->data, a->bytes) == 0, "%s: %s differs", types[i],
                  a->name);
        }
        model_close(&ours);
        model_close(&theirs);
        unlink(in_dir("a.gguf"));
    }
    model_close(&m);
}

static void test_refusals(void **state)
{
    (void)state;
    struct error err;
    struct model m, q;
    NEED_SHARED(path, "models/stories260K/gguf/stories260K-ffn192-f32.gguf");
    NEED_SHARED(quantized, "models/stories260K/gguf/stories260K-ffn192-q4_0.gguf");
    MUST(model_open(&m, path, false, &err));
    MUST(model_open(&q, quantized, false, &err));
    struct {
        const struct model *m;
        const char *method, *out, *says;
    } cases[] = {
        { &m, "rtn:q4_0", path, "output is the input" },
        { &m, "rtm:q4_0", in_dir("a.gguf"), "did you mean rtn" },
        { &m, "rtn:q4", in_dir("a.gguf"), "does not write q4" },
        { &m, "q4_0", in_dir("a.gguf"), "rtn:q4_0" },
        { &m, "rtn:q4_0", in_dir("no/such/a.gguf"), "no/such" },
        { &q, "rtn:q4_0", in_dir("a.gguf"), "quantized already" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        err.text[0] = 0;
        CHECK(!run(cases[i].m, cases[i].method, cases[i].out, 1, false, &err), "case %zu was accepted", i);
        CHECK(strstr(err.text, cases[i].says), "case %zu says: %s", i, err.text);
    }
    CHECK(!file_exists(in_dir("a.gguf")) && !file_exists(in_dir("a.gguf.partial")), "something was left");
    MUST(run(&q, "rtn:q8_0", in_dir("a.gguf"), 1, true, &err));
    unlink(in_dir("a.gguf"));
    model_close(&m);
    model_close(&q);
}

/* A weight that is not a number is named, and no file appears. */
static void test_not_finite(void **state)
{
    (void)state;
    struct error err;
    struct model m;
    NEED_SHARED(path, "models/stories260K/gguf/stories260K-ffn192-f32.gguf");
    MUST(model_open(&m, path, false, &err));
    static const char *const names[] = { "blk.2.ffn_up.weight", "blk.3.attn_norm.weight" };
    for (int i = 0; i < 2; i++) {
        struct tensor *t = (struct tensor *)(uintptr_t)model_find(&m, names[i]);
        const void *old = t->data;
        float *copy = malloc(t->bytes);
        memcpy(copy, old, t->bytes);
        copy[t->cols * (t->rows - 1) + 5] = i ? INFINITY : NAN;
        t->data = copy;
        CHECK(!run(&m, "rtn:q4_0", in_dir("a.gguf"), 2, false, &err), "%s was accepted", names[i]);
        CHECK(strstr(err.text, names[i]) && strstr(err.text, "column 5"), "%s", err.text);
        CHECK(!file_exists(in_dir("a.gguf")) && !file_exists(in_dir("a.gguf.partial")), "something was left");
        t->data = old;
        free(copy);
    }
    model_close(&m);
}

/* A finite weight whose block's half-precision scale would be infinite. */
static void test_too_large(void **state)
{
    (void)state;
    struct error err;
    struct model m;
    NEED_SHARED(path, "models/stories260K/gguf/stories260K-ffn192-f32.gguf");
    MUST(model_open(&m, path, false, &err));
    struct tensor *t = (struct tensor *)(uintptr_t)model_find(&m, "blk.2.ffn_up.weight");
    const void *old = t->data;
    float *copy = malloc(t->bytes);
    memcpy(copy, old, t->bytes);
    copy[t->cols * 7 + 40] = 1e30f;
    t->data = copy;
    static const char *const methods[] = { "rtn:q4_0", "rtn:q8_0", "rtn:q4_k_m" };
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        CHECK(!run(&m, methods[i], in_dir("a.gguf"), 2, false, &err), "%s: accepted", methods[i]);
        CHECK(strstr(err.text, "blk.2.ffn_up.weight") && strstr(err.text, "too large"), "%s: %s", methods[i], err.text);
        CHECK(!file_exists(in_dir("a.gguf")) && !file_exists(in_dir("a.gguf.partial")), "something was left");
    }
    t->data = old;
    free(copy);
    model_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_files_equal_llama_quantize),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_too_large),
    };
    return cmocka_run_group_tests_name("quant_convert", tests, make_scratch, remove_empty_scratch);
}
