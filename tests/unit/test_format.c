/* formats[]: every decoder against ggml's own output, integer forms against decoders, 16-bit floats. */
#include "check.h"

#include "model/model.h"

enum { GOLDEN_VALUES = 4096 };

static void test_golden_blocks(void **state)
{
    (void)state;
    NEED_SHARED(types, "quant_golden/types.tsv");
    int seen = 0;
    for (int f = 0; f < FORMAT_COUNT; f++) {
        struct error err;
        struct mapping blocks = { 0 }, want = { 0 };
        char name[64];
        if (formats[f].ggml_type < 0 || f == FORMAT_F32)
            continue;
        snprintf(name, sizeof name, "quant_golden/%s.blk", formats[f].name);
        MUST(mapping_open(&blocks, shared_data(name), &err));
        snprintf(name, sizeof name, "quant_golden/%s.f32", formats[f].name);
        MUST(mapping_open(&want, shared_data(name), &err));
        CHECK(blocks.size == (size_t)format_row_bytes((enum format_id)f, GOLDEN_VALUES), "%s: %zu bytes", formats[f].name, blocks.size);
        float out[GOLDEN_VALUES], expected[GOLDEN_VALUES];
        memcpy(expected, want.data, sizeof expected);
        formats[f].to_f32(blocks.data, out, GOLDEN_VALUES);
        for (int i = 0; i < GOLDEN_VALUES; i++)
            CHECK(out[i] == expected[i], "%s element %d: got %.9g, want %.9g", formats[f].name, i, (double)out[i], (double)expected[i]);
        mapping_close(&blocks);
        mapping_close(&want);
        seen++;
    }
    CHECK(seen == 27, "%d types compared", seen);
}

/* Any bytes are a block: the integer form must give what the decoder gives, but for one rounding. */
static void test_codes_give_the_same_values(void **state)
{
    (void)state;
    enum { BLOCKS = 5 };
    for (int f = 0; f < FORMAT_COUNT; f++) {
        const struct format *t = &formats[f];
        if (!t->int_block) {
            CHECK(!t->to_codes, "%s has codes but no sub-block", t->name);
            continue;
        }
        uint8_t bytes[BLOCKS * 256];
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (uint8_t)random_at(7 + (uint64_t)f, i);
        if (f == FORMAT_I4M || f == FORMAT_I8M)
            for (int b = 0; b < BLOCKS; b++) {
                float pair[2] = { 0.01f * (float)(b - 2), -1.5f + (float)b };
                memcpy(bytes + b * t->block_bytes, pair, sizeof pair);
            }
        int n = BLOCKS * t->block, low = 127, high = -128;
        float out[BLOCKS * 256], scale[BLOCKS * 16], min[BLOCKS * 16];
        int8_t codes[BLOCKS * 256];
        t->to_f32(bytes, out, n);
        t->to_codes(bytes, codes, scale, t->has_min ? min : NULL, n);
        for (int i = 0; i < n; i++) {
            float s = scale[i / t->int_block], m = t->has_min ? min[i / t->int_block] : 0;
            double got = (double)s * codes[i] + m;
            if (isfinite(out[i]) && isfinite(s) && isfinite(m))
                CHECK_NEAR(got, out[i], 1e-6 * (fabs((double)s * codes[i]) + fabs((double)m)), "%s element %d", t->name, i);
            low = codes[i] < low ? codes[i] : low;
            high = codes[i] > high ? codes[i] : high;
        }
        if (t->code_bits == 4)
            CHECK((low >= -8 && high <= 7) || (low >= 0 && high <= 15), "%s: codes %d..%d are no nibbles", t->name, low, high);
        CHECK(t->code_bits == 4 || t->code_bits == 8, "%s: %d bits", t->name, t->code_bits);
    }
}

static void test_i8m_and_codebooks(void **state)
{
    (void)state;
    struct block_i8m i8 = { .d = 0.5f, .m = -3 };
    struct block_nf4 nf = { .absmax = 2 };
    float out[32];
    for (int i = 0; i < 32; i++)
        i8.qs[i] = (uint8_t)(8 * i);
    for (int i = 0; i < 16; i++)
        nf.qs[i] = (uint8_t)(i | (15 - i) << 4);
    formats[FORMAT_I8M].to_f32(&i8, out, 32);
    for (int i = 0; i < 32; i++)
        CHECK(out[i] == 4.0f * (float)i - 3, "i8m element %d is %g", i, (double)out[i]);
    formats[FORMAT_NF4].to_f32(&nf, out, 32);
    for (int i = 0; i < 16; i++)
        CHECK(out[i] == 2 * nf4_values[i] && out[i + 16] == 2 * nf4_values[15 - i], "nf4 element %d is %g", i, (double)out[i]);
    formats[FORMAT_FP4].to_f32(&nf, out, 32);
    CHECK(out[3] == 2 && out[11] == -2, "fp4's largest values are %g %g", (double)out[3], (double)out[11]);
}

/* Every code but the two that are no numbers, by the definition; those give zero. */
static void test_f8(void **state)
{
    (void)state;
    for (int first = 0; first < 256; first += 32) {
        struct block_f8 b = { .d = 0.75f };
        float out[32];
        for (int i = 0; i < 32; i++)
            b.qs[i] = (uint8_t)(first + i);
        formats[FORMAT_F8].to_f32(&b, out, 32);
        for (int i = 0; i < 32; i++) {
            int x = first + i, e = x >> 3 & 15, m = x & 7;
            double want = ldexp(e ? 8 + m : m, (e ? e : 1) - 10) * (x & 0x80 ? -0.75 : 0.75);
            CHECK((double)out[i] == ((x & 0x7f) == 0x7f ? 0 : want), "code %02x is %g, expected %g", x, (double)out[i], want);
        }
    }
}

static void test_f16(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        float f = f16_to_f32((uint16_t)h);
        int e = h >> 10 & 31, m = h & 1023;
        double want = ldexp(e ? 1024 + m : m, (e ? e : 1) - 25) * (h >> 15 ? -1 : 1);
        if (e == 31 && m) {
            CHECK(isnan(f) && isnan(f16_to_f32(f32_to_f16(f))), "f16 %04x should be NaN", h);
            continue;
        }
        CHECK(e == 31 ? isinf(f) && (f < 0) == (h >> 15) : (double)f == want, "f16 %04x is %g", h, (double)f);
        CHECK(f32_to_f16(f) == h, "f16 %04x comes back as %04x", h, f32_to_f16(f));
    }
    /* Half way between two neighbours goes to the even one; a hair to either side goes there. */
    for (unsigned h = 0; h < 0x7bff; h++) {
        float a = f16_to_f32((uint16_t)h), b = f16_to_f32((uint16_t)(h + 1)), mid = a + (b - a) / 2;
        unsigned even = h & 1 ? h + 1 : h;
        CHECK(f32_to_f16(mid) == even, "middle above %04x went to %04x", h, f32_to_f16(mid));
        CHECK(f32_to_f16(nextafterf(mid, 0)) == h && f32_to_f16(nextafterf(mid, 1e9f)) == h + 1, "beside the middle above %04x", h);
        CHECK(f32_to_f16(-mid) == (even | 0x8000), "negative middle above %04x", h);
    }
    CHECK(f32_to_f16(65519.996f) == 0x7bff && f32_to_f16(65520) == 0x7c00 && f32_to_f16(1e30f) == 0x7c00, "overflow");
}

static void test_bf16(void **state)
{
    (void)state;
    static const struct { uint32_t f32; uint16_t bf16; } cases[] = {
        { 0x3f800000, 0x3f80 }, { 0x3f808000, 0x3f80 }, { 0x3f818000, 0x3f82 }, { 0x3f808001, 0x3f81 },
        { 0xbf817fff, 0xbf81 }, { 0x7f7fffff, 0x7f80 }, { 0x7f800001, 0x7fc0 }, { 0xffffffff, 0xffff }, { 0x00000000, 0 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        float f;
        memcpy(&f, &cases[i].f32, sizeof f);
        CHECK(f32_to_bf16(f) == cases[i].bf16, "%08x went to %04x", cases[i].f32, f32_to_bf16(f));
    }
}

static void test_names_and_ids(void **state)
{
    (void)state;
    for (int f = 0; f < FORMAT_COUNT; f++) {
        enum format_id id = FORMAT_COUNT;
        CHECK(formats[f].name && format_by_name(formats[f].name, &id) && id == (enum format_id)f, "row %d by name", f);
        if (formats[f].ggml_type >= 0)
            CHECK(format_by_ggml_type(formats[f].ggml_type, &id) && id == (enum format_id)f, "%s by type", formats[f].name);
        CHECK(formats[f].ggml_type < 0 || !format_refusal(formats[f].ggml_type), "%s is refused", formats[f].name);
    }
    enum format_id id;
    for (int type = -2; type < 50; type++)
        CHECK(!(format_by_ggml_type(type, &id) && format_refusal(type)), "type %d is read and refused", type);
    CHECK(strstr(format_refusal(31), "q4_0_4_4"), "type 31: %s", format_refusal(31));
    CHECK(!format_by_name("q9_9", &id) && !format_by_ggml_type(-1, &id) && !format_refusal(1000), "unknown names and ids");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_blocks),
        cmocka_unit_test(test_codes_give_the_same_values),
        cmocka_unit_test(test_i8m_and_codebooks),
        cmocka_unit_test(test_f16), cmocka_unit_test(test_f8),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_names_and_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
