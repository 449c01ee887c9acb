/* blocks.c - one row of weights to blocks by ggml's reference rules (quantization.md 1.3, 1.4): the 32-wide
 * formats and the 16-bit floats, and the table of every format that can be written. */
#include "blocks.h"

#include <assert.h>
#include <math.h>

#include "lanes.h"
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

/* Whole numbers in [0, 255.5], truncated. */
static void bytes_of_floats(const float *v, uint8_t *out)
{
#if defined(__SSE2__)
    for (int j = 0; j < 32; j += 16) {
        __m128i a = _mm_cvttps_epi32(_mm_loadu_ps(v + j)), b = _mm_cvttps_epi32(_mm_loadu_ps(v + j + 4));
        __m128i c = _mm_cvttps_epi32(_mm_loadu_ps(v + j + 8)), d = _mm_cvttps_epi32(_mm_loadu_ps(v + j + 12));
        __m128i bytes = _mm_packus_epi16(_mm_packs_epi32(a, b), _mm_packs_epi32(c, d));
        memcpy(out + j, &bytes, 16);
    }
#else
    for (int j = 0; j < 32; j++)
        out[j] = (uint8_t)(int)v[j];
#endif
}

/* Scales so small that 1/d overflows leave nothing worth having: all codes from 0. */
static float inverse(float d)
{
    float inv = d != 0 ? 1 / d : 0;
    return fabsf(inv) < INFINITY ? inv : 0;
}

/* Least and greatest of a block, and the first one of largest magnitude. */
static float block_range(const float *x, float *lo, float *hi)
{
    float a[VF_LANES], b[VF_LANES];
    vf least = vf_load(x), most = least;
    for (int j = VF_LANES; j < 32; j += VF_LANES) {
        least = vf_min(vf_load(x + j), least);
        most = vf_max(vf_load(x + j), most);
    }
    vf_store(a, least);
    vf_store(b, most);
    *lo = a[0];
    *hi = b[0];
    for (int k = 1; k < VF_LANES; k++) {
        *lo = a[k] < *lo ? a[k] : *lo;
        *hi = b[k] > *hi ? b[k] : *hi;
    }
    if (*hi != -*lo)
        return *hi > -*lo ? *hi : *lo;
    for (int j = 0; j < 32; j++)
        if (x[j] == *hi || x[j] == *lo)
            return x[j];
    return 0;
}

/* trunc(clamp((x - base) inv + add, 0, limit)) */
static void block_codes(const float *x, float base, float inv, float add, int limit, uint8_t *codes)
{
    float v[32];
    for (int j = 0; j < 32; j += VF_LANES) {
        vf s = (vf_load(x + j) - vf_set(base)) * vf_set(inv) + vf_set(add);
        vf_store(v + j, vf_max(vf_min(s, vf_set((float)limit + 0.5f)), vf_set(0)));
    }
    bytes_of_floats(v, codes);
}

static uint64_t eight(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

/* Byte j: code j in the low nibble, code j + 16 in the high one. */
static void pack_nibbles(const uint8_t *codes, uint8_t *qs)
{
    for (int j = 0; j < 16; j += 8) {
        uint64_t low = 0x0f0f0f0f0f0f0f0f, both = (eight(codes + j) & low) | (eight(codes + j + 16) & low) << 4;
        memcpy(qs + j, &both, 8);
    }
}
/* Bit j of byte k: the fifth bit of code 8 k + j, gathered by one multiplication. */
static void pack_fifth_bits(const uint8_t *codes, uint8_t qh[4])
{
    for (int k = 0; k < 4; k++)
        qh[k] = (uint8_t)((eight(codes + 8 * k) >> 4 & 0x0101010101010101) * 0x0102040810204080 >> 56);
}

/* Symmetric: the signed extremum lands on the lowest code, -half. */
static float symmetric_codes(const float *x, int half, uint8_t *codes)
{
    float lo, hi, d = block_range(x, &lo, &hi) / (float)-half;
    block_codes(x, 0, inverse(d), (float)half + 0.5f, 2 * half - 1, codes);
    return d;
}
static float affine_codes(const float *x, int limit, uint8_t *codes, float *min)
{
    float hi;
    block_range(x, min, &hi);
    float d = (hi - *min) / (float)limit;
    block_codes(x, *min, inverse(d), 0.5f, limit, codes);
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

/* d, the min and the fifth bits where the format has them, the nibbles: the blocks of Q4_0, Q4_1, Q5_0 and Q5_1. */
static uint8_t *put_block(uint8_t *to, float d, const float *min, bool fifth, const uint8_t *codes)
{
    uint16_t half[2] = { f32_to_f16(d), min ? f32_to_f16(*min) : 0 };
    memcpy(to, half, min ? 4 : 2);
    to += min ? 4 : 2;
    if (fifth) {
        pack_fifth_bits(codes, to);
        to += 4;
    }
    pack_nibbles(codes, to);
    return to + 16;
}

static inline void write_symmetric(const float *x, const float *importance, uint8_t *to, int64_t n, bool fifth)
{
    float ms = importance ? row_mean_square(x, n) : 0;
    for (int64_t i = 0; i < n; i += 32) {
        uint8_t codes[32];
        float d = symmetric_block(x + i, importance ? importance + i : NULL, ms, fifth ? 16 : 8, codes);
        to = put_block(to, d, NULL, fifth, codes);
    }
}
static void write_q4_0(const float *x, const float *importance, void *out, int64_t n)
{
    write_symmetric(x, importance, out, n, false);
}
static void write_q5_0(const float *x, const float *importance, void *out, int64_t n)
{
    write_symmetric(x, importance, out, n, true);
}

static inline void write_affine(const float *x, const float *importance, uint8_t *to, int64_t n, bool fifth)
{
    float ms = importance ? row_mean_square(x, n) : 0, d[SEARCH_WIDE], m[SEARCH_WIDE];
    uint8_t codes[32 * SEARCH_WIDE];
    for (int64_t i = 0; i < n; i += 32 * SEARCH_WIDE) {
        int count = n - i < 32 * SEARCH_WIDE ? (int)(n - i) / 32 : SEARCH_WIDE;
        affine_blocks(x + i, importance ? importance + i : NULL, ms, fifth ? 31 : 15, count, codes, d, m);
        for (int c = 0; c < count; c++)
            to = put_block(to, d[c], &m[c], fifth, codes + 32 * c);
    }
}
static void write_q4_1(const float *x, const float *importance, void *out, int64_t n)
{
    write_affine(x, importance, out, n, false);
}
static void write_q5_1(const float *x, const float *importance, void *out, int64_t n)
{
    write_affine(x, importance, out, n, true);
}

/* Half away from zero, as roundf, of |x| < 2^22: round to even first, then mend the ties that went down. */
static void q8_codes(const float *x, float inv, int8_t *codes)
{
    float v[32];
    for (int j = 0; j < 32; j += VF_LANES) {
        vf s = vf_load(x + j) * vf_set(inv), even = vf_rint(s), rest = s - even;
        even = vf_if_less(vf_set(0), s, vf_if_less(rest, vf_set(0.5f), even, even + vf_set(1)), even);
        even = vf_if_less(s, vf_set(0), vf_if_less(vf_set(-0.5f), rest, even, even - vf_set(1)), even);
        vf_store(v + j, even + vf_set(128));
    }
    uint8_t shifted[32];
    bytes_of_floats(v, shifted);
    for (int j = 0; j < 32; j++)
        codes[j] = (int8_t)(shifted[j] - 128);
}

static void write_q8_0(const float *x, const float *importance, void *out, int64_t n)
{
    (void)importance;       /* eight bits leave nothing to choose */
    struct block_q8_0 *b = out;
    for (int64_t i = 0; i < n; i += 32, b++) {
        float lo, hi, d = fabsf(block_range(x + i, &lo, &hi)) / 127;
        b->d = f32_to_f16(d);
        q8_codes(x + i, inverse(d), b->qs);
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
