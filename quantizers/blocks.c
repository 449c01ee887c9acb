/* blocks.c - one row of weights to blocks by ggml's reference rules (quantization.md 1.3, 1.4): the 32-wide
 * formats and the 16-bit floats, and the table of every format that can be written. */
#include "blocks.h"

#include <assert.h>
#include <math.h>

#include "search.h"

static float row_mean_square(const float *x, int64_t n)
{
    float sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sum / (float)n;
}

/* ggml's weight of an element: its importance, raised where the value is large against the row. */
void importance_weights(int n, const float *x, const float *importance, float mean_square, float *w)
{
    for (int i = 0; i < n; i++)
        w[i] = importance[i] * sqrtf(mean_square + x[i] * x[i]);
}

static float signed_extremum(int n, const float *x)
{
    float amax = 0, max = 0;
    for (int i = 0; i < n; i++)
        if (amax < fabsf(x[i])) {
            amax = fabsf(x[i]);
            max = x[i];
        }
    return max;
}

/* Scales so small that 1/d overflows give no codes worth having; they must not leave the code range either. */
static int code_of(float scaled, int limit)
{
    return scaled < (float)(limit + 1) ? scaled > 0 ? (int)scaled : 0 : limit;
}

static void pack_nibbles(const uint8_t *codes, uint8_t *qs)
{
    for (int j = 0; j < 16; j++)
        qs[j] = (uint8_t)((codes[j] & 15) | (codes[j + 16] & 15) << 4);
}
static void pack_fifth_bits(const uint8_t *codes, uint8_t qh[4])
{
    uint32_t bits = 0;
    for (int j = 0; j < 32; j++)
        bits |= (uint32_t)(codes[j] >> 4 & 1) << j;
    for (int k = 0; k < 4; k++)
        qh[k] = (uint8_t)(bits >> 8 * k);
}

/* Symmetric: the signed extremum lands on the lowest code, -half. */
static float symmetric_codes(const float *x, int half, uint8_t *codes)
{
    float d = signed_extremum(32, x) / (float)-half, inv = d != 0 ? 1 / d : 0;
    for (int j = 0; j < 32; j++)
        codes[j] = (uint8_t)code_of(x[j] * inv + ((float)half + 0.5f), 2 * half - 1);
    return d;
}
static float affine_codes(const float *x, int limit, uint8_t *codes, float *min)
{
    float lo = x[0], hi = x[0];
    for (int j = 1; j < 32; j++) {
        lo = x[j] < lo ? x[j] : lo;
        hi = x[j] > hi ? x[j] : hi;
    }
    float d = (hi - lo) / (float)limit, inv = d != 0 ? 1 / d : 0;
    for (int j = 0; j < 32; j++)
        codes[j] = (uint8_t)code_of((x[j] - lo) * inv + 0.5f, limit);
    *min = lo;
    return d;
}

static const struct qkx_grid affine_grid = { -0.9f, 0.05f, 36, false };

/* Codes and scale of one block of a symmetric format, searched when there is an importance. */
static float symmetric_block(const float *x, const float *importance, float mean_square, int half, uint8_t *codes)
{
    if (!importance)
        return symmetric_codes(x, half, codes);
    float w[32];
    importance_weights(32, x, importance, mean_square, w);
    return search_qx(32, half, x, w, (int8_t *)codes);
}
static void affine_blocks(const float *x, const float *importance, float mean_square, int limit, int count,
                          uint8_t *codes, float *d, float *m)
{
    for (int c = 0; c < count && !importance; c++)
        d[c] = affine_codes(x + 32 * c, limit, codes + 32 * c, &m[c]);
    if (!importance)
        return;
    float w[32 * SEARCH_WIDE];
    importance_weights(32 * count, x, importance, mean_square, w);
    search_qkx(32, limit, count, x, w, &affine_grid, codes, d, m);
    for (int c = 0; c < count; c++)
        m[c] = -m[c];
}

static void write_q4_0(const float *x, const float *importance, void *out, int64_t n)
{
    struct block_q4_0 *b = out;
    float ms = importance ? row_mean_square(x, n) : 0;
    for (int64_t i = 0; i < n; i += 32, b++) {
        uint8_t codes[32];
        b->d = f32_to_f16(symmetric_block(x + i, importance ? importance + i : NULL, ms, 8, codes));
        pack_nibbles(codes, b->qs);
    }
}
static void write_q5_0(const float *x, const float *importance, void *out, int64_t n)
{
    struct block_q5_0 *b = out;
    float ms = importance ? row_mean_square(x, n) : 0;
    for (int64_t i = 0; i < n; i += 32, b++) {
        uint8_t codes[32];
        b->d = f32_to_f16(symmetric_block(x + i, importance ? importance + i : NULL, ms, 16, codes));
        pack_nibbles(codes, b->qs);
        pack_fifth_bits(codes, b->qh);
    }
}
static void write_q4_1(const float *x, const float *importance, void *out, int64_t n)
{
    struct block_q4_1 *b = out;
    float ms = importance ? row_mean_square(x, n) : 0, d[SEARCH_WIDE], m[SEARCH_WIDE];
    uint8_t codes[32 * SEARCH_WIDE];
    for (int64_t i = 0; i < n; i += 32 * SEARCH_WIDE) {
        int count = n - i < 32 * SEARCH_WIDE ? (int)(n - i) / 32 : SEARCH_WIDE;
        affine_blocks(x + i, importance ? importance + i : NULL, ms, 15, count, codes, d, m);
        for (int c = 0; c < count; c++, b++) {
            b->d = f32_to_f16(d[c]);
            b->m = f32_to_f16(m[c]);
            pack_nibbles(codes + 32 * c, b->qs);
        }
    }
}
static void write_q5_1(const float *x, const float *importance, void *out, int64_t n)
{
    struct block_q5_1 *b = out;
    float ms = importance ? row_mean_square(x, n) : 0, d[SEARCH_WIDE], m[SEARCH_WIDE];
    uint8_t codes[32 * SEARCH_WIDE];
    for (int64_t i = 0; i < n; i += 32 * SEARCH_WIDE) {
        int count = n - i < 32 * SEARCH_WIDE ? (int)(n - i) / 32 : SEARCH_WIDE;
        affine_blocks(x + i, importance ? importance + i : NULL, ms, 31, count, codes, d, m);
        for (int c = 0; c < count; c++, b++) {
            b->d = f32_to_f16(d[c]);
            b->m = f32_to_f16(m[c]);
            pack_nibbles(codes + 32 * c, b->qs);
            pack_fifth_bits(codes + 32 * c, b->qh);
        }
    }
}

/* roundf (half away from zero) of values within int range, in a form that vectorises. */
static int round_away(float x)
{
    int t = (int)x;
    float rest = x - (float)t;
    return t + (rest >= 0.5f) - (rest <= -0.5f);
}

static void write_q8_0(const float *x, const float *importance, void *out, int64_t n)
{
    (void)importance;       /* eight bits leave nothing to choose */
    struct block_q8_0 *b = out;
    for (int64_t i = 0; i < n; i += 32, b++) {
        float d = fabsf(signed_extremum(32, x + i)) / 127, inv = d != 0 ? 1 / d : 0;
        b->d = f32_to_f16(d);
        if (!(inv < INFINITY))
            inv = 0;
        for (int j = 0; j < 32; j++)
            b->qs[j] = (int8_t)round_away(x[i + j] * inv);
    }
}

static void write_f32(const float *x, const float *importance, void *out, int64_t n)
{
    (void)importance;
    memcpy(out, x, (size_t)n * sizeof *x);
}
static void write_f16(const float *x, const float *importance, void *out, int64_t n)
{
    (void)importance;
    uint16_t *h = out;
    for (int64_t i = 0; i < n; i++)
        h[i] = f32_to_f16(x[i]);
}
static void write_bf16(const float *x, const float *importance, void *out, int64_t n)
{
    (void)importance;
    uint16_t *h = out;
    for (int64_t i = 0; i < n; i++)
        h[i] = f32_to_bf16(x[i]);
}

/* Every format that can be written: one row each. */
static void (*const writers[FORMAT_COUNT])(const float *x, const float *importance, void *out, int64_t n) = {
    [FORMAT_F32] = write_f32,   [FORMAT_F16] = write_f16,       [FORMAT_BF16] = write_bf16,
    [FORMAT_Q4_0] = write_q4_0, [FORMAT_Q4_1] = write_q4_1,     [FORMAT_Q5_0] = write_q5_0,
    [FORMAT_Q5_1] = write_q5_1, [FORMAT_Q8_0] = write_q8_0,     [FORMAT_Q2_K] = write_q2_k,
    [FORMAT_Q3_K] = write_q3_k, [FORMAT_Q4_K] = write_q4_k,     [FORMAT_Q5_K] = write_q5_k,
    [FORMAT_Q6_K] = write_q6_k, [FORMAT_IQ4_NL] = write_iq4_nl, [FORMAT_IQ4_XS] = write_iq4_xs,
};

bool quantize_row(enum format_id f, const float *x, const float *importance, void *out, int64_t n)
{
    if ((unsigned)f >= FORMAT_COUNT || !writers[f])
        return false;
    assert(n % formats[f].block == 0);
    writers[f](x, importance, out, n);
    return true;
}

bool format_writable(enum format_id f)
{
    return (unsigned)f < FORMAT_COUNT && writers[f] != NULL;
}
