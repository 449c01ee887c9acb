/* kernels_avx2.c - sixteen lanes in two registers: AVX2, FMA, F16C.  Integer products are 16 x 16 bits in both
 * rounded modes; the int8 instruction of AVX2 saturates.
 *
 * Measured as in kernels_avx512.c, 512 activation rows, 1536 x 1536 and 6144 x 1536: Q4_0 i16 (and q8) 171, 174 GOP/s;
 * bf16 107 GFLOP/s for 1536 x 1536. */
#include "set.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include "lanes_avx2.h"
#include "vectors.h"

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define INLINE static inline __attribute__((always_inline))

enum { PREFETCH_BYTES = 6144 };

INLINE __m256i load8(const void *p)
{
    return _mm256_loadu_si256(p);
}

INLINE void store8(void *p, __m256i v)
{
    _mm256_storeu_si256(p, v);
}

/* ---- rounding of activations ---- */

static float largest_of(const float *x, int n)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i most = _mm256_setzero_si256();
    for (int i = 0; i < n; i += 8)
        most = _mm256_max_epu32(most, _mm256_and_si256(load8(x + i), magnitude));
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
    return _mm_cvtss_f32(_mm_castsi128_ps(m));
}

static void round_32(const float *x, float inv, float limit, bool away, int16_t *codes)
{
    for (int i = 0; i < 32; i += 8) {
        __m256 r = _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(inv));
        r = _mm256_min_ps(_mm256_max_ps(r, _mm256_set1_ps(-limit)), _mm256_set1_ps(limit));
        /* The largest float below a half: adding a half itself would carry 0.49999997 up. */
        __m256i c = away ? _mm256_cvttps_epi32(_mm256_add_ps(r, copysign8(_mm256_set1_ps(0x1.fffffep-2f), r)))
                         : _mm256_cvtps_epi32(r);
        __m128i h = _mm_packs_epi32(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1));
        _mm_storeu_si128((__m128i *)(codes + i), h);
    }
}

#include "round.h"

/* ---- codes and scales of a packed chunk; words of 64 bytes are two registers ---- */

INLINE void put_quad(uint8_t *codes, int q, int half, __m256i v)
{
    store8(codes + 128 * q + 32 * half, _mm256_and_si256(v, _mm256_set1_epi16(0xff)));
    store8(codes + 128 * q + 64 + 32 * half, _mm256_srli_epi16(v, 8));
}

INLINE void expand_nibbles(const uint8_t *in, int words, int half, const uint8_t *lut, int q, uint8_t *codes)
{
    const __m256i low = _mm256_set1_epi8(15);
    __m256i table = lut ? _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)lut)) : low;
    for (int i = 0; i < words; i++)
        for (int h = 0; h < 2; h++) {
            __m256i w = load8(in + 64 * i + 32 * h);
            __m256i a = _mm256_and_si256(w, low), b = _mm256_and_si256(_mm256_srli_epi16(w, 4), low);
            if (lut) {
                a = _mm256_shuffle_epi8(table, a);
                b = _mm256_shuffle_epi8(table, b);
            }
            put_quad(codes, q + i, h, a);
            put_quad(codes, q + i + half, h, b);
        }
}

INLINE void expand_6k(const uint8_t *in, uint8_t *codes)
{
    const __m256i low = _mm256_set1_epi8(15), two = _mm256_set1_epi8(0x30);
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 16; i++) {
            const uint8_t *ql = in + half * 1024 + i * 32;
            __m256i a = load8(ql), b = load8(ql + 512), h = load8(in + 2048 + half * 512 + i * 32);
            __m256i c[4] = { _mm256_and_si256(a, low), _mm256_and_si256(b, low),
                             _mm256_and_si256(_mm256_srli_epi16(a, 4), low),
                             _mm256_and_si256(_mm256_srli_epi16(b, 4), low) };
            __m256i t[4] = { _mm256_slli_epi16(h, 4), _mm256_slli_epi16(h, 2), h, _mm256_srli_epi16(h, 2) };
            UNROLL
            for (int k = 0; k < 4; k++)
                put_quad(codes, half * 32 + k * 8 + i / 2, i % 2, _mm256_or_si256(c[k], _mm256_and_si256(t[k], two)));
        }
}

static void expand_codes(const struct layout *l, const uint8_t *in, int blocks, uint8_t *codes)
{
    /* The scales at a chunk's end break the stream that hardware would follow. */
    for (size_t i = 0; i < layout_code_bytes(l, blocks) + 256; i += 64)
        _mm_prefetch((const char *)(in + i + PREFETCH_BYTES), _MM_HINT_T0);
    if (l->plane == PLANE_6K)
        expand_6k(in, codes);
    else if (l->plane == PLANE_4K)
        for (int s = 0; s < blocks / 2; s++)
            expand_nibbles(in + 512 * s, 8, 8, NULL, 16 * s, codes);
    else if (l->plane == PLANE_4)
        for (int b = 0; b < blocks; b++)
            expand_nibbles(in + 256 * b, 4, 4, l->lut, 8 * b, codes);
    else
        for (int q = 0; q < 8 * blocks; q++) {
            put_quad(codes, q, 0, load8(in + 64 * q));
            put_quad(codes, q, 1, load8(in + 64 * q + 32));
        }
}

INLINE __m256 f16_at(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

static void expand_scales(const struct layout *l, const uint8_t *in, int subs, int index_bias, bool negate,
                          float out[16][16])
{
    if (l->scales == SCALES_F32) {
        memcpy(out, in, (size_t)subs * sizeof out[0]);
        return;
    }
    __m256 sign = _mm256_set1_ps(negate ? -0.0f : 0.0f);
    for (int s = 0; s < subs; s++)
        for (int h = 0; h < 2; h++) {
            if (l->scales == SCALES_F16 || l->scales == SCALES_ZERO) {
                _mm256_storeu_ps(out[s] + 8 * h, f16_at(in + 32 * s + 16 * h));
                continue;
            }
            __m256i index = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(in + 32 + 16 * s + 8 * h)));
            index = _mm256_sub_epi32(index, _mm256_set1_epi32(index_bias));
            __m256 v = _mm256_mul_ps(f16_at(in + 16 * h), _mm256_cvtepi32_ps(index));
            _mm256_storeu_ps(out[s] + 8 * h, _mm256_xor_ps(v, sign));
        }
}

/* Mins of SCALES_ZERO, from the scales expanded before. */
static void expand_zeros(const uint8_t *in, int subs, struct expanded *e)
{
    for (int s = 0; s < subs; s++)
        for (int i = 0; i < 16; i += 8) {
            __m256 zero = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(in + 16 * s + i))));
            __m256 v = _mm256_mul_ps(_mm256_loadu_ps(e->scale[s] + i), zero);
            _mm256_storeu_ps(e->min[s] + i, _mm256_xor_ps(v, _mm256_set1_ps(-0.0f)));
        }
}

static void expand_avx2(enum format_id id, const uint8_t *chunk, int blocks, bool wide, struct expanded *out)
{
    const struct layout *l = layout_of(id);
    const struct format *f = &formats[id];
    int subs = blocks * 32 / f->int_block;
    const uint8_t *scales = chunk + layout_code_bytes(l, blocks);
    (void)wide;
    expand_codes(l, chunk, blocks, out->codes);
    expand_scales(l, scales, subs, l->index_bias, false, out->scale);
    const uint8_t *mins = scales + layout_scale_bytes(l, blocks, f->int_block);
    if (l->scales == SCALES_ZERO)
        expand_zeros(mins, subs, out);
    else if (f->has_min)
        expand_scales(l, mins, subs, 0, true, out->min);
}

/* ---- integer tiles: 8 rows x T, twice ---- */

INLINE __m256i every_lane(const uint8_t *p)
{
    int x;
    memcpy(&x, p, sizeof x);
    return _mm256_set1_epi32(x);
}

INLINE __m256 every_lane_f32(const uint8_t *p)
{
    float x;
    memcpy(&x, p, sizeof x);
    return _mm256_set1_ps(x);
}

INLINE void tile(const struct expanded *w, int half, const int subs, bool has_min, const uint8_t *panel, const int T,
                 int blocks, float *acc)
{
    const int words = 16 / subs;
    const uint8_t *codes = w->codes + 32 * half;
    __m256 f[6];
    UNROLL
    for (int t = 0; t < T; t++)
        f[t] = _mm256_loadu_ps(acc + 16 * t + 8 * half);
    for (int b = 0; b < blocks; b++, panel += (size_t)T * panel_unit(true, 32 / subs)) {
        const uint8_t *scales = panel + T * 64, *starts = scales + T * 4, *sums = starts + T * subs * 4;
        UNROLL
        for (int s = 0; s < subs; s++) {
            __m256i isum[6];
            UNROLL
            for (int t = 0; t < T; t++)
                isum[t] = every_lane(starts + 4 * (t * subs + s));
            UNROLL
            for (int v = 0; v < words; v++, codes += 64) {
                __m256i c = load8(codes);
                UNROLL
                for (int t = 0; t < T; t++) {
                    __m256i a = every_lane(panel + t * 64 + 4 * (s * words + v));
                    isum[t] = _mm256_add_epi32(isum[t], _mm256_madd_epi16(c, a));
                    /* Else the compiler gathers all products first, to add them as a tree, and has no registers. */
                    __asm__("" : "+x"(isum[t]));
                }
            }
            __m256 ws = _mm256_loadu_ps(w->scale[b * subs + s] + 8 * half);
            UNROLL
            for (int t = 0; t < T; t++)
                f[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(isum[t]), _mm256_mul_ps(ws, every_lane_f32(scales + 4 * t)), f[t]);
            if (!has_min)
                continue;
            __m256 wm = _mm256_loadu_ps(w->min[b * subs + s] + 8 * half);
            UNROLL
            for (int t = 0; t < T; t++)
                f[t] = _mm256_fmadd_ps(every_lane_f32(sums + 4 * (t * subs + s)),
                                       _mm256_mul_ps(wm, every_lane_f32(scales + 4 * t)), f[t]);
        }
    }
    UNROLL
    for (int t = 0; t < T; t++)
        _mm256_storeu_ps(acc + 16 * t + 8 * half, f[t]);
}

#define TILES_OF(T)                                                                                            \
    static void tile_##T(const struct expanded *w, int sub, bool has_min, const uint8_t *panel, int blocks,    \
                         float *acc)                                                                           \
    {                                                                                                          \
        for (int half = 0; half < 2; half++)                                                                   \
            if (sub == 32)                                                                                     \
                tile(w, half, 1, has_min, panel, T, blocks, acc);                                              \
            else                                                                                               \
                tile(w, half, 2, has_min, panel, T, blocks, acc);                                              \
    }
TILES_OF(6)
TILES_OF(4)
TILES_OF(2)
TILES_OF(1)
static const int widths[] = { 6, 4, 2, 1 };

static void multiply_avx2(const struct expanded *w, int tiles, bool wide, int sub, bool has_min, const uint8_t *panel,
                          int T, int blocks, float *acc, size_t step)
{
    (void)wide;
    for (int r = 0; r < tiles; r++)
        (T == 6 ? tile_6 : T == 4 ? tile_4 : T == 2 ? tile_2 : tile_1)(&w[r], sub, has_min, panel, blocks,
                                                                       acc + (size_t)r * step);
}

/* ---- float tiles: 4 rows x T, lanes along the columns, eight of them at a time ---- */

INLINE __m256 bf16_at(const uint8_t *p)
{
    __m256i x = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
}

static void expand_float_avx2(enum format_id f, const uint8_t *row, int n, float *out)
{
    for (int k = 0; k < n; k += 16, out += FLOAT_ROWS * 16) {
        float other[16] = { 0 };
        int left = n - k < 16 ? n - k : 16;
        if (left == 16 && f == FORMAT_BF16)
            for (int h = 0; h < 2; h++)
                _mm256_storeu_ps(other + 8 * h, bf16_at(row + 2 * k + 16 * h));
        else if (left == 16 && f == FORMAT_F16)
            for (int h = 0; h < 2; h++)
                _mm256_storeu_ps(other + 8 * h, f16_at(row + 2 * k + 16 * h));
        else
            formats[f].to_f32(row + format_row_bytes(f, k), other, left);
        v_store(out, v_load(other));
    }
}

static void expand_any_avx2(enum format_id f, const uint8_t *row, int n, float *out)
{
    if (formats[f].block == 1) {
        expand_float_avx2(f, row, n, out);
        return;
    }
    float other[FLOAT_CHUNK];
    formats[f].to_f32(row, other, n);
    expand_float_avx2(FORMAT_F32, (const uint8_t *)other, n, out);
}

INLINE void tile_float(const float *w, const float *panel, const int T, int steps, bool begins, float *acc)
{
    __m256 a[FLOAT_ROWS * 3];
    UNROLL
    for (int i = 0; i < FLOAT_ROWS * T; i++)
        a[i] = begins ? _mm256_setzero_ps() : _mm256_loadu_ps(acc + 16 * i);
    for (int k = 0; k < steps; k++, w += FLOAT_ROWS * 16, panel += T * 16) {
        __m256 x[3];
        UNROLL
        for (int t = 0; t < T; t++)
            x[t] = _mm256_loadu_ps(panel + 16 * t);
        UNROLL
        for (int i = 0; i < FLOAT_ROWS; i++) {
            __m256 c = _mm256_loadu_ps(w + 16 * i);
            UNROLL
            for (int t = 0; t < T; t++)
                a[i * T + t] = _mm256_fmadd_ps(c, x[t], a[i * T + t]);
        }
    }
    UNROLL
    for (int i = 0; i < FLOAT_ROWS * T; i++)
        _mm256_storeu_ps(acc + 16 * i, a[i]);
}

static void multiply_float_avx2(const float *w, const float *panel, int T, int steps, bool begins, float *acc)
{
    for (int half = 0; half < 16; half += 8)
        if (T == 3)
            tile_float(w + half, panel + half, 3, steps, begins, acc + half);
        else if (T == 2)
            tile_float(w + half, panel + half, 2, steps, begins, acc + half);
        else
            tile_float(w + half, panel + half, 1, steps, begins, acc + half);
}

/* One activation row: four rows of the file at once. */
INLINE void direct_float(const enum format_id f, const uint8_t *row, size_t row_bytes, int n, const float *panel, bool begins,
                         float *acc)
{
    const int size = f == FORMAT_F32 ? 4 : 2;
    v16 a[FLOAT_ROWS];
    UNROLL
    for (int i = 0; i < FLOAT_ROWS; i++)
        a[i] = begins ? v_set(0.0f) : v_load(acc + 16 * i);
    int k = 0;
    for (; k + 16 <= n; k += 16, panel += 16) {
        v16 x = v_load(panel);
        UNROLL
        for (int i = 0; i < FLOAT_ROWS; i++) {
            const uint8_t *p = row + (size_t)i * row_bytes + (size_t)(size * k);
            _mm_prefetch((const char *)(p + PREFETCH_BYTES / 4), _MM_HINT_T0);
            v16 c = f == FORMAT_F32 ? (v16){ _mm256_loadu_ps((const float *)p), _mm256_loadu_ps((const float *)p + 8) }
                    : f == FORMAT_F16 ? (v16){ f16_at(p), f16_at(p + 16) }
                                      : (v16){ bf16_at(p), bf16_at(p + 16) };
            a[i] = v_fma(c, x, a[i]);
        }
    }
    for (int i = 0; i < FLOAT_ROWS && k < n; i++) {
        float tail[16] = { 0 };
        formats[f].to_f32(row + (size_t)i * row_bytes + (size_t)(size * k), tail, n - k);
        a[i] = v_fma(v_load(tail), v_load(panel), a[i]);
    }
    UNROLL
    for (int i = 0; i < FLOAT_ROWS; i++)
        v_store(acc + 16 * i, a[i]);
}

static bool multiply_float_direct_avx2(enum format_id f, const uint8_t *row, size_t row_bytes, int n, const float *panel,
                                       int T, bool begins, float *acc)
{
    if (T != 1)
        return false;
    if (f == FORMAT_F32)
        direct_float(FORMAT_F32, row, row_bytes, n, panel, begins, acc);
    else if (f == FORMAT_F16)
        direct_float(FORMAT_F16, row, row_bytes, n, panel, begins, acc);
    else if (f == FORMAT_BF16)
        direct_float(FORMAT_BF16, row, row_bytes, n, panel, begins, acc);
    else
        return false;
    return true;
}

static void sums_avx2(const float *acc, size_t step, int n, float *out)
{
    for (int i = 0; i < n; i++)
        out[i] = v_sum(v_load(acc + (size_t)i * step));
}

static const struct tile_ops tile_avx2 = {
    .group = 6,
    .widths = widths,
    .float_group = 3,
    .round = round_row_part,
    .expand = expand_avx2,
    .multiply = multiply_avx2,
    .expand_float = expand_any_avx2,
    .multiply_float = multiply_float_avx2,
    .multiply_float_direct = multiply_float_direct_avx2,
    .sums = sums_avx2,
};

/* ---- peaks ---- */

#define PEAK_LOOP(NAME, TYPE, ZERO, STEP, OPS)                                    \
    static double NAME(int rounds)                                                \
    {                                                                             \
        TYPE a[PEAK_CHAINS], x = ZERO;                                            \
        UNROLL                                                                    \
        for (int i = 0; i < PEAK_CHAINS; i++)                                     \
            a[i] = ZERO;                                                          \
        __asm__ volatile("" : "+x"(x));                                           \
        for (int r = 0; r < rounds; r++) {                                        \
            UNROLL                                                                \
            for (int i = 0; i < PEAK_CHAINS; i++)                                 \
                a[i] = STEP;                                                      \
            UNROLL                                                                \
            for (int i = 0; i < PEAK_CHAINS; i++)                                 \
                __asm__ volatile("" : "+x"(a[i]));                                \
        }                                                                         \
        return (double)(OPS) * PEAK_CHAINS * rounds;                              \
    }
PEAK_LOOP(peak_int8, __m256i, _mm256_setzero_si256(), _mm256_add_epi16(a[i], _mm256_maddubs_epi16(x, a[i])), 64)
PEAK_LOOP(peak_int16, __m256i, _mm256_setzero_si256(), _mm256_add_epi32(a[i], _mm256_madd_epi16(x, a[i])), 32)
PEAK_LOOP(peak_f32, __m256, _mm256_setzero_ps(), _mm256_fmadd_ps(x, x, a[i]), 16)

static double peak_read(const void *p, size_t bytes)
{
    __m256i sum[4] = { _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256() };
    for (size_t i = 0; i + 128 <= bytes; i += 128)
        UNROLL
        for (int j = 0; j < 4; j++)
            sum[j] = _mm256_xor_si256(sum[j], load8((const uint8_t *)p + i + 32 * j));
    __asm__ volatile("" : : "x"(sum[0]), "x"(sum[1]), "x"(sum[2]), "x"(sum[3]));
    return (double)bytes;
}

static const struct peak_ops peak_avx2 = { peak_int8, peak_int16, peak_f32, peak_read };

static bool cpu_has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");     /* every CPU with AVX2 has F16C */
}

const struct kernels kernels_avx2 = {
    .name = "avx2",
    .supported = cpu_has_avx2,
    VECTOR_OPS,
    .pack = tiles_pack,
    .apply = tiles_apply,
    .tile = &tile_avx2,
    .peak = &peak_avx2,
};

#else

static bool never(void)
{
    return false;
}
const struct kernels kernels_avx2 = { .name = "avx2", .supported = never };

#endif
