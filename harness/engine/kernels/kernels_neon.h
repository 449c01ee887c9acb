/* kernels_neon.h - what the two NEON sets share: rounding, expansion of packed chunks, float tiles, peaks.
 *
 * The including file defines first what its integer products want of a quad, 16 rows x 4 elements of a code word:
 *     uint8x16x4_t quad_at(const uint8_t *p)                                  64 packed bytes
 *     void put_quad(uint8_t *codes, int q, uint8x16x4_t v, bool wide)         codes of word q of the expanded chunk
 * Nothing between them mixes bytes, so a quad may come with its elements apart (vld4q) or as it lies. */
#ifndef QDELTA_KERNELS_NEON_H
#define QDELTA_KERNELS_NEON_H

#include "lanes_neon.h"
#include "vectors.h"

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define INLINE static inline __attribute__((always_inline))

static uint8x16x4_t quad_at(const uint8_t *p);
static void put_quad(uint8_t *codes, int q, uint8x16x4_t v, bool wide);

/* ---- rounding of activations ---- */

static float largest_of(const float *x, int n)
{
    uint32x4_t most = vdupq_n_u32(0);
    for (int i = 0; i < n; i += 4)
        most = vmaxq_u32(most, vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(x + i))));
    return vget_lane_f32(vreinterpret_f32_u32(vdup_n_u32(vmaxvq_u32(most))), 0);
}

static void round_32(const float *x, float inv, float limit, bool away, int16_t *codes)
{
    for (int i = 0; i < 32; i += 4) {
        float32x4_t r = vmulq_n_f32(vld1q_f32(x + i), inv);
        r = smaller4(larger4(r, vdupq_n_f32(-limit)), vdupq_n_f32(limit));
        vst1_s16(codes + i, vqmovn_s32(away ? vcvtaq_s32_f32(r) : vcvtnq_s32_f32(r)));
    }
}

#include "round.h"

/* ---- codes and scales of a packed chunk ---- */

static void expand_nibbles(const uint8_t *in, int words, int half, const uint8_t *lut, int q, bool wide, uint8_t *codes)
{
    const uint8x16_t low = vdupq_n_u8(15), table = lut ? vld1q_u8(lut) : low;
    for (int i = 0; i < words; i++) {
        uint8x16x4_t w = quad_at(in + 64 * i), a, b;
        UNROLL
        for (int e = 0; e < 4; e++) {
            a.val[e] = vandq_u8(w.val[e], low);
            b.val[e] = vshrq_n_u8(w.val[e], 4);
            if (lut) {
                a.val[e] = vqtbl1q_u8(table, a.val[e]);
                b.val[e] = vqtbl1q_u8(table, b.val[e]);
            }
        }
        put_quad(codes, q + i, a, wide);
        put_quad(codes, q + i + half, b, wide);
    }
}

static void expand_6k(const uint8_t *in, bool wide, uint8_t *codes)
{
    const uint8x16_t low = vdupq_n_u8(15), two = vdupq_n_u8(0x30);
    for (int i = 0; i < 16; i++) {
        const uint8_t *ql = in + i / 8 * 1024 + i % 8 * 64;
        uint8x16x4_t a = quad_at(ql), b = quad_at(ql + 512), h = quad_at(in + 2048 + 64 * i), c[4];
        UNROLL
        for (int e = 0; e < 4; e++) {
            c[0].val[e] = vorrq_u8(vandq_u8(a.val[e], low), vandq_u8(vshlq_n_u8(h.val[e], 4), two));
            c[1].val[e] = vorrq_u8(vandq_u8(b.val[e], low), vandq_u8(vshlq_n_u8(h.val[e], 2), two));
            c[2].val[e] = vorrq_u8(vshrq_n_u8(a.val[e], 4), vandq_u8(h.val[e], two));
            c[3].val[e] = vorrq_u8(vshrq_n_u8(b.val[e], 4), vandq_u8(vshrq_n_u8(h.val[e], 2), two));
        }
        for (int k = 0; k < 4; k++)
            put_quad(codes, i / 8 * 32 + k * 8 + i % 8, c[k], wide);
    }
}

static void expand_codes(const struct layout *l, const uint8_t *in, int blocks, bool wide, uint8_t *codes)
{
    if (l->plane == PLANE_6K)
        expand_6k(in, wide, codes);
    else if (l->plane == PLANE_4K)
        for (int s = 0; s < blocks / 2; s++)
            expand_nibbles(in + 512 * s, 8, 8, NULL, 16 * s, wide, codes);
    else if (l->plane == PLANE_4)
        for (int b = 0; b < blocks; b++)
            expand_nibbles(in + 256 * b, 4, 4, l->lut, 8 * b, wide, codes);
    else
        for (int q = 0; q < 8 * blocks; q++)
            put_quad(codes, q, quad_at(in + 64 * q), wide);
}

INLINE float32x4_t f16_at(const uint8_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}

static void expand_scales(const struct layout *l, const uint8_t *in, int subs, int index_bias, bool negate,
                          float out[16][16])
{
    if (l->scales == SCALES_F32) {
        memcpy(out, in, (size_t)subs * sizeof out[0]);
        return;
    }
    for (int s = 0; s < subs; s++)
        for (int i = 0; i < 16; i += 4) {
            if (l->scales == SCALES_F16 || l->scales == SCALES_ZERO) {
                vst1q_f32(out[s] + i, f16_at(in + 32 * s + 2 * i));
                continue;
            }
            const uint8_t *byte = in + 32 + 16 * s + i;
            const float index[4] = { (float)(byte[0] - index_bias), (float)(byte[1] - index_bias),
                                     (float)(byte[2] - index_bias), (float)(byte[3] - index_bias) };
            float32x4_t v = vmulq_f32(f16_at(in + 2 * i), vld1q_f32(index));
            vst1q_f32(out[s] + i, negate ? vnegq_f32(v) : v);
        }
}

/* Mins of SCALES_ZERO, from the scales expanded before. */
static void expand_zeros(const uint8_t *in, int subs, struct expanded *e)
{
    for (int s = 0; s < subs; s++, in += 16)
        for (int i = 0; i < 16; i += 4) {
            const float zero[4] = { in[i], in[i + 1], in[i + 2], in[i + 3] };
            vst1q_f32(e->min[s] + i, vnegq_f32(vmulq_f32(vld1q_f32(e->scale[s] + i), vld1q_f32(zero))));
        }
}

static void expand_chunk(enum format_id id, const uint8_t *chunk, int blocks, bool wide, struct expanded *out)
{
    const struct layout *l = layout_of(id);
    const struct format *f = &formats[id];
    int subs = blocks * 32 / f->int_block;
    const uint8_t *scales = chunk + layout_code_bytes(l, blocks);
    expand_codes(l, chunk, blocks, wide, out->codes);
    expand_scales(l, scales, subs, l->index_bias, false, out->scale);
    const uint8_t *mins = scales + layout_scale_bytes(l, blocks, f->int_block);
    if (l->scales == SCALES_ZERO)
        expand_zeros(mins, subs, out);
    else if (f->has_min)
        expand_scales(l, mins, subs, 0, true, out->min);
}

/* ---- integer tiles: what follows the integer sums of a sub-block ---- */

INLINE float f32_at(const uint8_t *p)
{
    float x;
    memcpy(&x, p, sizeof x);
    return x;
}

INLINE int32_t i32_at(const uint8_t *p)
{
    int32_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

/* acc [T][16] += isum * scales of sub-block i of the chunk; scales and sums (step apart) of the activations. */
INLINE void add_block(const struct expanded *w, int i, bool has_min, int32x4_t (*isum)[4], const uint8_t *scales,
                      const uint8_t *sums, size_t step, const int T, float *acc)
{
    UNROLL
    for (int t = 0; t < T; t++)
        UNROLL
        for (int r = 0; r < 4; r++) {
            float s = f32_at(scales + 4 * t), *at = acc + 16 * t + 4 * r;
            float32x4_t f = vld1q_f32(at);
            f = vfmaq_f32(f, vcvtq_f32_s32(isum[t][r]), vmulq_n_f32(vld1q_f32(w->scale[i] + 4 * r), s));
            if (has_min)
                f = vfmaq_f32(f, vdupq_n_f32(f32_at(sums + step * (size_t)t)), vmulq_n_f32(vld1q_f32(w->min[i] + 4 * r), s));
            vst1q_f32(at, f);
        }
}

/* ---- float tiles: 4 rows x T, lanes along the columns, four of them at a time ---- */

enum { FLOAT_GROUP = 4 };

INLINE float32x4_t bf16_at(const uint8_t *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16));
}

/* Sixteen elements of a row stored as f. */
INLINE v16 widened(const enum format_id f, const uint8_t *p)
{
    if (f == FORMAT_BF16)
        return (v16){ bf16_at(p), bf16_at(p + 8), bf16_at(p + 16), bf16_at(p + 24) };
    if (f == FORMAT_F16)
        return (v16){ f16_at(p), f16_at(p + 8), f16_at(p + 16), f16_at(p + 24) };
    return (v16){ vreinterpretq_f32_u8(vld1q_u8(p)), vreinterpretq_f32_u8(vld1q_u8(p + 16)),
                  vreinterpretq_f32_u8(vld1q_u8(p + 32)), vreinterpretq_f32_u8(vld1q_u8(p + 48)) };
}

/* The same of the last n of a row. */
static v16 widened_up_to(enum format_id f, const uint8_t *p, int n)
{
    uint8_t part[64] = { 0 };
    memcpy(part, p, (size_t)format_row_bytes(f, n < 16 ? n : 16));
    return widened(f, part);
}

static void expand_float_neon(enum format_id f, const uint8_t *row, int n, float *out)
{
    float other[FLOAT_CHUNK];
    if (f != FORMAT_BF16 && f != FORMAT_F16 && f != FORMAT_F32) {
        formats[f].to_f32(row, other, n);
        f = FORMAT_F32;
        row = (const uint8_t *)other;
    }
    for (int k = 0; k < n; k += 16, out += FLOAT_ROWS * 16)
        v_store(out, widened_up_to(f, row + format_row_bytes(f, k), n - k));
}

INLINE void tile_float(const float *w, const float *panel, const int T, int steps, bool begins, float *acc)
{
    float32x4_t a[FLOAT_ROWS][FLOAT_GROUP];
    UNROLL
    for (int i = 0; i < FLOAT_ROWS; i++)
        UNROLL
        for (int t = 0; t < T; t++)
            a[i][t] = begins ? vdupq_n_f32(0.0f) : vld1q_f32(acc + 16 * (i * T + t));
    for (int k = 0; k < steps; k++, w += FLOAT_ROWS * 16, panel += T * 16) {
        UNROLL
        for (int i = 0; i < FLOAT_ROWS; i++)
            UNROLL
            for (int t = 0; t < T; t++)
                a[i][t] = vfmaq_f32(a[i][t], vld1q_f32(w + 16 * i), vld1q_f32(panel + 16 * t));
    }
    UNROLL
    for (int i = 0; i < FLOAT_ROWS; i++)
        UNROLL
        for (int t = 0; t < T; t++)
            vst1q_f32(acc + 16 * (i * T + t), a[i][t]);
}

static void multiply_float_neon(const float *w, const float *panel, int T, int steps, bool begins, float *acc)
{
    for (int lane = 0; lane < 16; lane += 4, w += 4, panel += 4, acc += 4)
        switch (T) {
        case 4: tile_float(w, panel, 4, steps, begins, acc); break;
        case 3: tile_float(w, panel, 3, steps, begins, acc); break;
        case 2: tile_float(w, panel, 2, steps, begins, acc); break;
        default: tile_float(w, panel, 1, steps, begins, acc);
        }
}

/* One activation row: four rows of the file at once. */
INLINE void direct_rows(const enum format_id f, const uint8_t *row, size_t row_bytes, int n, const float *panel, bool begins,
                        float *acc)
{
    const int whole = n / 16, bytes = f == FORMAT_F32 ? 64 : 32;
    for (int i = 0; i < FLOAT_ROWS; i += 2, row += 2 * row_bytes, acc += 32) {
        const uint8_t *p = row, *q = row + row_bytes;
        v16 a = begins ? v_set(0.0f) : v_load(acc), b = begins ? v_set(0.0f) : v_load(acc + 16);
        for (int k = 0; k < whole; k++, p += bytes, q += bytes) {
            v16 x = v_load(panel + 16 * k);
            a = v_fma(widened(f, p), x, a);
            b = v_fma(widened(f, q), x, b);
        }
        if (n % 16) {
            v16 x = v_load(panel + 16 * whole);
            a = v_fma(widened_up_to(f, p, n % 16), x, a);
            b = v_fma(widened_up_to(f, q, n % 16), x, b);
        }
        v_store(acc, a);
        v_store(acc + 16, b);
    }
}

static bool multiply_float_direct_neon(enum format_id f, const uint8_t *row, size_t row_bytes, int n, const float *panel,
                                       int T, bool begins, float *acc)
{
    bool known = T == 1 && (f == FORMAT_F32 || f == FORMAT_F16 || f == FORMAT_BF16);
    if (known && f == FORMAT_BF16)
        direct_rows(FORMAT_BF16, row, row_bytes, n, panel, begins, acc);
    else if (known && f == FORMAT_F16)
        direct_rows(FORMAT_F16, row, row_bytes, n, panel, begins, acc);
    else if (known)
        direct_rows(FORMAT_F32, row, row_bytes, n, panel, begins, acc);
    return known;
}

static void sums_neon(const float *acc, size_t step, int n, float *out)
{
    for (int i = 0; i < n; i++)
        out[i] = v_sum(v_load(acc + (size_t)i * step));
}

#define FLOAT_OPS                                                                                            \
    .float_group = FLOAT_GROUP, .expand_float = expand_float_neon, .multiply_float = multiply_float_neon,    \
    .multiply_float_direct = multiply_float_direct_neon, .sums = sums_neon

/* ---- peaks ---- */

/* rounds of PEAK_CHAINS independent STEPs on sum (and a second operand x), each of OPS operations. */
#define PEAK_OF(NAME, TYPE, ZERO, STEP, OPS)                    \
    static double NAME(int rounds)                              \
    {                                                           \
        TYPE sums[PEAK_CHAINS], x = ZERO;                       \
        for (int i = 0; i < PEAK_CHAINS; i++)                   \
            sums[i] = ZERO;                                     \
        for (int r = 0; r < rounds; r++)                        \
            UNROLL                                              \
            for (int i = 0; i < PEAK_CHAINS; i++) {             \
                TYPE sum = sums[i];                             \
                sum = STEP;                                     \
                __asm__ volatile("" : "+w"(sum), "+w"(x));      \
                sums[i] = sum;                                  \
            }                                                   \
        return (double)(OPS) * PEAK_CHAINS * rounds;            \
    }
PEAK_OF(peak_int16, int32x4_t, vdupq_n_s32(0), vmlal_s16(sum, vget_low_s16(vreinterpretq_s16_s32(x)), vget_low_s16(vreinterpretq_s16_s32(x))), 8)
PEAK_OF(peak_f32, float32x4_t, vdupq_n_f32(0.0f), vfmaq_f32(sum, x, x), 8)

static double peak_read(const void *p, size_t bytes)
{
    const uint8_t *at = p;
    uint8x16_t sum[4] = { vdupq_n_u8(0), vdupq_n_u8(0), vdupq_n_u8(0), vdupq_n_u8(0) };
    for (size_t i = 0; i + 64 <= bytes; i += 64)
        UNROLL
        for (int j = 0; j < 4; j++)
            sum[j] = veorq_u8(sum[j], vld1q_u8(at + i + 16 * j));
    __asm__ volatile("" : : "w"(sum[0]), "w"(sum[1]), "w"(sum[2]), "w"(sum[3]));
    return (double)bytes;
}

#endif
