/* Blocks against ggml's own (quant_golden), the weighted searches against digests recorded from ggml's library,
 * round-trip errors against quantization.md 11. */
#include "check.h"

#include "base/base.h"
#include "model/model.h"
#include "quantizers.h"

static const enum format_id golden_formats[] = {
    FORMAT_F16,  FORMAT_BF16, FORMAT_Q4_0, FORMAT_Q4_1, FORMAT_Q5_0,   FORMAT_Q5_1,  FORMAT_Q8_0,
    FORMAT_Q2_K, FORMAT_Q3_K, FORMAT_Q4_K, FORMAT_Q5_K, FORMAT_Q6_K, FORMAT_IQ4_NL, FORMAT_IQ4_XS,
};

static void test_blocks_equal_ggml(void **state)
{
    (void)state;
    struct error err;
    NEED_SHARED(source, "quant_golden/source.f32");
    struct mapping src = { 0 };
    MUST(mapping_open(&src, source, &err));
    int64_t n = (int64_t)(src.size / 4), cols = 1024;
    for (size_t k = 0; k < ARRAY_LEN(golden_formats); k++) {
        const struct format *f = &formats[golden_formats[k]];
        char name[64];
        snprintf(name, sizeof name, "quant_golden/%s.blk", f->name);
        NEED_SHARED(path, name);
        struct mapping want = { 0 };
        MUST(mapping_open(&want, path, &err));
        int64_t row_bytes = format_row_bytes(golden_formats[k], cols);
        CHECK((int64_t)want.size == n / cols * row_bytes, "%s has %zu bytes", path, want.size);
        uint8_t *got = mem_new((size_t)row_bytes, 1, &err);
        assert_non_null(got);
        for (int64_t r = 0; r < n / cols; r++) {
            CHECK(quantize_row(golden_formats[k], (const float *)src.data + r * cols, NULL, got, cols), "%s", f->name);
            for (int64_t i = 0; i < row_bytes; i++)
                CHECK(got[i] == want.data[r * row_bytes + i], "%s row %d: block %d byte %d is %02x, ggml has %02x",
                      f->name, (int)r, (int)(i / f->block_bytes), (int)(i % f->block_bytes), got[i],
                      want.data[r * row_bytes + i]);
        }
        free(got);
        mapping_close(&want);
    }
    mapping_close(&src);
}

/* SHA-256 of the blocks that ggml's library (ggml 0.25.3, no FMA) makes of source.f32 with importance
 * 1 + (37 i mod 101) / 4 of column i; recorded through its ggml_quantize_chunk. */
static const struct {
    enum format_id f;
    const char *sha256;
} weighted[] = {
    { FORMAT_Q4_0, "e75ca3ac4e04726ce55e8753d335977a383d8f1c5d60cfff341fce93198edf0a" },
    { FORMAT_Q4_1, "b7f6db2f32f50f2afc8e14dca310348002c839cb2c4abff3782eb13d5f18105e" },
    { FORMAT_Q5_0, "f25242b481904bea8f7e969496d43077b3863f14a7eeb7f80c03b6b976ce6e59" },
    { FORMAT_Q5_1, "ba9534eeab8c84cebcfacffe9223d5ca342b21a1ca3b0c89a1f610293c7825ac" },
    { FORMAT_Q8_0, "6c05bd0ed8354e1ea81e57c2c6291e6e4a36f8bc4b430a48dfc5a2fc67cc60e6" },
    { FORMAT_Q2_K, "3f2e7c2e621eff08144e77f8f143e2d22dbe3d1f2d3bc07368f2947f0c0ddd0c" },
    { FORMAT_Q3_K, "8049119ea1acf2c1ef5da36363b591558557a70f432d8268c42a6eeb05e23ee5" },
    { FORMAT_Q4_K, "21873d3f229c92e75361431051852dd121265af15726deb03e8966c15a0dd97b" },
    { FORMAT_Q5_K, "f916d42711a4f8af22bf1f6e380701592f90171def55fcb07d7d4fbbbd0d6d21" },
    { FORMAT_Q6_K, "5ad049723ccc55197fa40a7046ffe81fbeb417f6950220a6687751c1ef30c117" },
    { FORMAT_IQ4_NL, "1a722009807e175f22711f116346900fc1bc1982f3067f13f6458208362fa6e5" },
    { FORMAT_IQ4_XS, "4530590767dbf0843b167c0d2256c4252642f606295ed12bdd7130058a36a797" },
};

static void test_weighted_blocks_equal_ggml(void **state)
{
    (void)state;
    struct error err;
    NEED_SHARED(source, "quant_golden/source.f32");
    struct mapping src = { 0 };
    MUST(mapping_open(&src, source, &err));
    float importance[1024];
    for (int i = 0; i < 1024; i++)
        importance[i] = 1 + (float)(i * 37 % 101) * 0.25f;
    for (size_t k = 0; k < ARRAY_LEN(weighted); k++) {
        int64_t row_bytes = format_row_bytes(weighted[k].f, 1024);
        uint8_t *blocks = mem_new(4, (size_t)row_bytes, &err), digest[32];
        char hex[65];
        assert_non_null(blocks);
        for (int r = 0; r < 4; r++)
            quantize_row(weighted[k].f, (const float *)src.data + r * 1024, importance, blocks + r * row_bytes, 1024);
        MUST(sha256_bytes(blocks, (size_t)(4 * row_bytes), digest, &err));
        hex_of(digest, 32, hex);
        CHECK(strcmp(hex, weighted[k].sha256) == 0, "%s: %s, ggml has %s", formats[weighted[k].f].name, hex, weighted[k].sha256);
        free(blocks);
    }
    mapping_close(&src);
}

/* Round trip of unit-normal weights: the errors that quantization.md 11 measured with ggml, within 1.5 %. */
static void test_round_trip_errors(void **state)
{
    (void)state;
    static const struct { enum format_id f; double rms; } want[] = {
        { FORMAT_Q8_0, .0054 }, { FORMAT_Q6_K, .0178 }, { FORMAT_Q5_K, .0361 }, { FORMAT_Q5_1, .0378 }, { FORMAT_Q5_0, .0427 }, { FORMAT_Q4_K, .0714 },
        { FORMAT_IQ4_XS, .0767 }, { FORMAT_IQ4_NL, .0761 }, { FORMAT_Q4_1, .0782 }, { FORMAT_Q4_0, .0859 }, { FORMAT_Q3_K, .1509 }, { FORMAT_Q2_K, .296 },
    };
    enum { COLS = 2048, ROWS = 64 };
    static float x[COLS * ROWS], back[COLS];
    static uint8_t blocks[COLS * 4];
    for (int i = 0; i < COLS * ROWS; i += 2) {
        double r = sqrt(-2 * log(1 - random_unit_at(5, (uint64_t)i))), a = 6.283185307179586 * random_unit_at(5, (uint64_t)i + 1);
        x[i] = (float)(r * cos(a));
        x[i + 1] = (float)(r * sin(a));
    }
    for (size_t k = 0; k < ARRAY_LEN(want); k++) {
        double error = 0, power = 0;
        for (int r = 0; r < ROWS; r++) {
            quantize_row(want[k].f, x + r * COLS, NULL, blocks, COLS);
            formats[want[k].f].to_f32(blocks, back, COLS);
            for (int c = 0; c < COLS; c++) {
                error += pow((double)back[c] - (double)x[r * COLS + c], 2);
                power += pow((double)x[r * COLS + c], 2);
            }
        }
        CHECK_NEAR(sqrt(error / power), want[k].rms, 0.015 * want[k].rms, "%s", formats[want[k].f].name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_equal_ggml),
        cmocka_unit_test(test_weighted_blocks_equal_ggml),
        cmocka_unit_test(test_round_trip_errors),
    };
    return cmocka_run_group_tests_name("quant_blocks", tests, NULL, NULL);
}
