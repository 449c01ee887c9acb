/* The lattice search: every synthetic QAT rule is recovered whole, random blocks never (models.md 1.9,
 * quantization.md 6.7), and conversion by the lattice gives back every weight. */
#include "check.h"

#include "base/base.h"
#include "quantizers.h"

#include "../../quantizers/lattice.h"

enum { BLOCKS = 2000, RANDOM_BLOCKS = 200000 };

static double normal(uint64_t i)
{
    return sqrt(-2 * log(random_unit_at(11, 2 * i) + 1e-300)) * cos(6.283185307179586 * random_unit_at(11, 2 * i + 1));
}

struct rule {
    const char *name;
    double divisor;             /* d = absmax / divisor; 0: signed extremum / -8 */
    int lo, hi;                 /* codes */
    enum format_id scale, weights;
    float size;                 /* of the weights; small ones have fp16-subnormal scales */
};
static const struct rule rules[] = {
    { "extremum/-8, bf16 scale", 0, -8, 7, FORMAT_BF16, FORMAT_BF16, 0.02f },
    { "extremum/-8, f16 scale", 0, -8, 7, FORMAT_F16, FORMAT_BF16, 0.02f },
    { "extremum/-8, f32 scale", 0, -8, 7, FORMAT_F32, FORMAT_BF16, 0.02f },
    { "absmax/7.5, bf16 scale", 7.5, -8, 7, FORMAT_BF16, FORMAT_BF16, 0.02f },
    { "absmax/7, bf16 scale", 7, -7, 7, FORMAT_BF16, FORMAT_BF16, 0.02f },
    { "absmax/7, f16 scale", 7, -7, 7, FORMAT_F16, FORMAT_BF16, 0.02f },
    { "absmax/8, bf16 scale", 8, -8, 7, FORMAT_BF16, FORMAT_BF16, 0.02f },
    { "absmax/7.5, codes to 7", 7.5, -7, 7, FORMAT_BF16, FORMAT_BF16, 0.02f },
    { "absmax/7.5, bf16 values in f32", 7.5, -8, 7, FORMAT_BF16, FORMAT_BF16, 0.02f },
    { "extremum/-8, f16 weights", 0, -8, 7, FORMAT_F16, FORMAT_F16, 0.5f },
    { "absmax/7.5, f32 weights", 7.5, -8, 7, FORMAT_F16, FORMAT_F32, 0.02f },
    { "absmax/7.5, scales below 2^-14", 7.5, -8, 7, FORMAT_BF16, FORMAT_BF16, 1e-4f },
};

static float rounded(float v, enum format_id f)
{
    return f == FORMAT_BF16 ? bf16_to_f32(f32_to_bf16(v)) : f == FORMAT_F16 ? f16_to_f32(f32_to_f16(v)) : v;
}

static void latent_block(int64_t b, float size, enum format_id f, float *x)
{
    for (int i = 0; i < 32; i++)
        x[i] = rounded((float)normal((uint64_t)(b * 32 + i)) * size, f);
}

static void fake_quantize(const struct rule *r, float *x)
{
    float m = 0;
    for (int i = 0; i < 32; i++)
        m = fabsf(x[i]) > fabsf(m) ? x[i] : m;
    float d = rounded(r->divisor > 0 ? fabsf(m) / (float)r->divisor : m / -8, r->scale);
    for (int i = 0; i < 32; i++) {
        float c = rintf(x[i] / d);
        c = c < (float)r->lo ? (float)r->lo : c > (float)r->hi ? (float)r->hi : c;
        x[i] = rounded(c * d, r->weights);
    }
}

static void test_rules(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(rules); k++) {
        int found = 0, kept = 0, bf16 = 0, f16 = 0;
        for (int64_t b = 0; b < BLOCKS; b++) {
            float x[32], back[32];
            struct block_q4_0 q;
            struct lattice_block l;
            latent_block(b, rules[k].size, FORMAT_F32, x);
            fake_quantize(&rules[k], x);
            lattice_find(x, rules[k].weights, &l);
            found += l.on_grid;
            bf16 += l.scale_bf16;
            f16 += l.scale_f16;
            lattice_row_q4_0(x, rules[k].weights, &q, 32);
            formats[FORMAT_Q4_0].to_f32(&q, back, 32);
            bool same = true;
            for (int i = 0; i < 32; i++)
                same &= rounded(back[i], rules[k].weights) == x[i];
            kept += same;
        }
        CHECK(found == BLOCKS, "%s: %d of %d blocks found", rules[k].name, found, BLOCKS);
        CHECK(rules[k].scale != FORMAT_BF16 || bf16 == BLOCKS, "%s: a bf16 scale in %d of %d", rules[k].name, bf16, BLOCKS);
        CHECK(rules[k].scale != FORMAT_F16 || f16 == BLOCKS, "%s: an f16 scale in %d of %d", rules[k].name, f16, BLOCKS);
        /* an fp16 scale below 2^-14 has fewer bits than the bf16 one it stands for */
        if (rules[k].size > 1e-3f && rules[k].scale != FORMAT_F32)
            CHECK(kept == BLOCKS, "%s: %d of %d blocks kept to the bit", rules[k].name, kept, BLOCKS);
    }
}

static void test_random_blocks(void **state)
{
    (void)state;
    static const enum format_id types[] = { FORMAT_BF16, FORMAT_F16, FORMAT_F32 };
    for (size_t t = 0; t < ARRAY_LEN(types); t++) {
        int found = 0;
        for (int64_t b = 0; b < (t ? RANDOM_BLOCKS / 10 : RANDOM_BLOCKS); b++) {
            float x[32];
            struct lattice_block l;
            latent_block(b + 100000, 0.02f, types[t], x);
            lattice_find(x, types[t], &l);
            found += l.on_grid;
        }
        CHECK(found == 0, "%d random %s blocks were taken for QAT", found, formats[types[t]].name);
    }
}

/* What stock rounding does to each rule: the shares and errors that models.md 1.9 gives. */
static void test_stock_loss(void **state)
{
    (void)state;
    static const struct { int rule; double same_lo, same_hi; } want[] = { { 0, 1, 1 }, { 3, 0.22, 0.29 }, { 4, 0, 0.001 }, { 6, 0.53, 0.63 } };
    for (size_t k = 0; k < ARRAY_LEN(want); k++) {
        const struct rule *r = &rules[want[k].rule];
        int same = 0;
        for (int64_t b = 0; b < BLOCKS; b++) {
            float x[32], back[32];
            struct block_q4_0 q;
            latent_block(b, r->size, FORMAT_F32, x);
            fake_quantize(r, x);
            quantize_row(FORMAT_Q4_0, x, NULL, &q, 32);
            formats[FORMAT_Q4_0].to_f32(&q, back, 32);
            bool equal = true;
            for (int i = 0; i < 32; i++)
                equal &= rounded(back[i], FORMAT_BF16) == x[i];
            same += equal;
        }
        double share = (double)same / BLOCKS;
        CHECK(share >= want[k].same_lo && share <= want[k].same_hi, "%s: stock rounding keeps %.4f of the blocks", r->name, share);
    }
}

static void test_edges(void **state)
{
    (void)state;
    float x[32] = { 0 };
    struct lattice_block l;
    struct block_q4_0 q;
    lattice_find(x, FORMAT_BF16, &l);
    CHECK(l.on_grid && l.zero, "a block of zeros");
    lattice_row_q4_0(x, FORMAT_BF16, &q, 32);
    CHECK((q.d & 0x7fff) == 0, "zeros got scale %04x", q.d);
    x[5] = -0.75f;
    lattice_find(x, FORMAT_BF16, &l);
    CHECK(l.on_grid && l.k == -8 && l.codes[5] == -8 && l.codes[0] == 0, "one weight alone: k %d", l.k);
    x[6] = 1e-30f;
    lattice_find(x, FORMAT_BF16, &l);
    CHECK(!l.on_grid, "a tiny neighbour is no multiple");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_random_blocks),
        cmocka_unit_test(test_stock_loss),
        cmocka_unit_test(test_edges),
    };
    return cmocka_run_group_tests_name("lattice", tests, NULL, NULL);
}
