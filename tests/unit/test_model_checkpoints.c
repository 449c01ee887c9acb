/* Quantized checkpoints made by the formats' own libraries (tests/golden/checkpoints.md): our logits against theirs. */
#include "check.h"

#include "engine/engine.h"

enum { SEQUENCES = 2, TOKENS = 16 };

static const struct { const char *name, *recipe; } checkpoints[] = {
    { "bitsandbytes_nf4", "bitsandbytes nf4" },          { "bitsandbytes_nf4_double", "bitsandbytes nf4" },
    { "bitsandbytes_fp4", "bitsandbytes fp4" },          { "compressed_tensors_sym", "compressed-tensors i4z" },
    { "compressed_tensors_asym", "compressed-tensors i4z" }, { "compressed_tensors_channel", "compressed-tensors i4z" },
    { "mlx_affine2", "mlx i4z" },                        { "mlx_affine4", "mlx i4h" },
    { "mlx_affine8", "mlx i8m" },                        { "gptq_4bit", "gptq i4z" },
    { "gptq_act_order", "gptq i4z" },                    { "gptq_v2_8bit", "gptq i8m" },
    { "gptq_2bit", "gptq i4z" },                         { "awq_gemm", "awq i4z" },
    { "gptq_3bit", "gptq i4z" },                         { "compressed_tensors_w8", "compressed-tensors i8m" },
    { "compressed_tensors_w8_asym", "compressed-tensors i8m" }, { "compressed_tensors_w3", "compressed-tensors i4z" },
    { "mlx_affine3", "mlx i4h" },                        { "mlx_affine5", "mlx i8m" },
    { "mlx_affine6", "mlx i8m" },                        { "mlx_mxfp4", "mlx mxfp4" },
    { "mlx_nvfp4", "mlx nvfp4" },                        { "metal_4bit", "metal i4m" },
    { "torchao_int4", "torchao i4m" },                   { "torchao_intx", "torchao i8m" },
    { "torchao_int8", "torchao i8m" },                   { "hqq_4bit", "hqq i4m" },
    { "hqq_3bit", "hqq i4m" },                           { "fp8_block", "fp8 f8" },
    { "mlx_mxfp8", "mlx f8" },                           { "compressed_tensors_fp8", "compressed-tensors f8" },
    { "compressed_tensors_fp8_tensor", "compressed-tensors f8" }, { "compressed_tensors_int8", "compressed-tensors i8m" },
    { "gemma_mobile", "gemma i4m" },                     { "compressed_tensors_nvfp4", "compressed-tensors f4" },
    { "compressed_tensors_mxfp4", "compressed-tensors mxfp4" },
};

static void read_golden(const char *name, const char *file, struct text *out)
{
    struct error err;
    char path[256];
    snprintf(path, sizeof path, "tests/golden/checkpoints/%s/%s", name, file);
    MUST(file_read(path, 1 << 20, out, &err));
}

static float largest_difference(const struct model *m, const int32_t *ids, const float *want)
{
    struct error err;
    struct engine_options o = { .act = ACT_F32, .threads = 1 };
    struct engine *e;
    size_t row = (size_t)m->config.vocab;
    float *got = malloc(TOKENS * row * sizeof *got), worst = 0;
    MUST(engine_open(&e, m, &o, &err));
    for (int s = 0; s < SEQUENCES; s++) {
        struct seq *seq;
        MUST(seq_open(&seq, e, NULL, &err));
        MUST(engine_forward(e, &(struct span){ seq, ids + s * TOKENS, TOKENS, 0 }, 1, got, &err));
        for (size_t i = 0; i < TOKENS * row; i++) {
            float d = fabsf(got[i] - want[(size_t)s * TOKENS * row + i]);
            worst = d <= worst ? worst : d;
        }
        seq_close(seq);
    }
    engine_close(e);
    free(got);
    return worst;
}

static void test_logits(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(checkpoints); i++) {
        struct error err;
        struct model m;
        struct text ids = { 0 }, logits = { 0 };
        char path[256];
        snprintf(path, sizeof path, "tests/golden/checkpoints/%s", checkpoints[i].name);
        read_golden(checkpoints[i].name, "ids.i32", &ids);
        read_golden(checkpoints[i].name, "logits.f32", &logits);
        MUST(model_open(&m, path, false, &err));
        CHECK(str_starts(m.recipe, checkpoints[i].recipe), "%s: recipe %s", path, m.recipe);
        CHECK(ids.len == SEQUENCES * TOKENS * 4 && logits.len == SEQUENCES * TOKENS * 4 * (size_t)m.config.vocab, "%s: %zu bytes of logits", path, logits.len);
        CHECK_NEAR(largest_difference(&m, (const int32_t *)(const void *)ids.data, (const float *)(const void *)logits.data), 0, 1e-4, "%s", path);
        model_close(&m);
        text_free(&ids);
        text_free(&logits);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_logits) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
