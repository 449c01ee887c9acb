/* kernels_avx512.c - sixteen lanes in one register, integer dot products by VNNI.
 *
 * Measured on both cores of a Zen 5 (AMD EPYC, family 26) as a share of the peak right before and after, medians of calls that
 * took turns with the version before; activations rounded already; 512 rows, matrices rows x cols:
 *                  12288 x 1536   1536 x 6144   1536 x 12288   peak, GOP/s
 *     Q4_0 i16     79 %           78            76             1040 (int16, vpdpwssd)
 *     Q4_0 q8      72             70            73             2050 (int8, vpdpbusd)
 *     1536 x 6144 with the rounding, i16 and q8: Q8_0 69, 61   Q4_K 63, 53   Q6_K 60, 51   IQ4_NL 74   int4 with zero points 66
 *     few rows, Q4_0 1536 x 12288: 16 rows i16 74, q8 63; 32 rows 76, 67.  One row: 75 .. 86 % of the read peak, 41 .. 76 GB/s
 *     Q6_K, an output head of 1536 columns: one row 78 % of the read peak; 16 rows i16 59, q8 44; 32 rows 64, 50
 * The integer tile alone, its weights in L1 or L2, reaches 84.5 % (i16) and 75 % (q8) of the peaks.  What bounds it are the two
 * ports of the multipliers: per 32-block, 16 rows and activation row 16 vpdpwssd (8 vpdpbusd), 1 multiplication and 1 fma.
 * That is the price of the defined sum: 11 % of i16 and 20 % of q8, half of it the multiplication ws * s.  The conversion and
 * the taking apart of codes go to other ports and cost nothing.  What is left: the panel's first way from L3, sums that wait in y.
 * Float products: a bf16 prefill of 512 has 79 % of the f32 peak (66 % with lanes along the columns and a tree for each sum), --act f32
 * on Q4_0 80 %; bf16 decode 67 % of the read peak (54 %).
 */
#include "set.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && defined(__AVX512VNNI__)

#include "lanes_avx512.h"
#include "vectors.h"

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define INLINE static inline __attribute__((always_inline))

enum { PREFETCH_BYTES = 6144 };

/* ---- packing ---- */

/* Words of 16 rows, four at a time: a register holds rows i, i + 4, i + 8, i + 12, and 4 x 4 words are turned inside
 * each quarter. */
static void transpose_avx512(const uint8_t *rows, size_t row_bytes, int words, int flip, uint8_t *out)
{
    const __m512i mask = _mm512_set1_epi8((char)flip);
    for (int w = 0; w < words; w += 4, rows += 16, out += 256) {
        __m512i r[4];
        UNROLL
        for (int i = 0; i < 4; i++) {
            const uint8_t *p = rows + (size_t)i * row_bytes;
            r[i] = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)p));
            r[i] = _mm512_inserti32x4(r[i], _mm_loadu_si128((const __m128i *)(p + 4 * row_bytes)), 1);
            r[i] = _mm512_inserti32x4(r[i], _mm_loadu_si128((const __m128i *)(p + 8 * row_bytes)), 2);
            r[i] = _mm512_inserti32x4(r[i], _mm_loadu_si128((const __m128i *)(p + 12 * row_bytes)), 3);
            r[i] = _mm512_xor_si512(r[i], mask);
        }
        __m512i a = _mm512_unpacklo_epi32(r[0], r[1]), b = _mm512_unpackhi_epi32(r[0], r[1]);
        __m512i c = _mm512_unpacklo_epi32(r[2], r[3]), d = _mm512_unpackhi_epi32(r[2], r[3]);
        _mm512_storeu_si512(out, _mm512_unpacklo_epi64(a, c));
        _mm512_storeu_si512(out + 64, _mm512_unpackhi_epi64(a, c));
        _mm512_storeu_si512(out + 128, _mm512_unpacklo_epi64(b, d));
        _mm512_storeu_si512(out + 192, _mm512_unpackhi_epi64(b, d));
    }
}

/* ---- rounding of activations ---- */

static float largest_of(const float *x, int n)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i most = _mm512_setzero_si512();
    for (int i = 0; i < n; i += 16)
        most = _mm512_max_epu32(most, _mm512_and_si512(_mm512_loadu_si512(x + i), magnitude));
    uint32_t bits = _mm512_reduce_max_epu32(most);
    float m;
    memcpy(&m, &bits, sizeof m);
    return m;
}

static void round_32(const float *x, float inv, float limit, bool away, int16_t *codes)
{
    for (int i = 0; i < 32; i += 16) {
        __m512 r = _mm512_mul_ps(_mm512_loadu_ps(x + i), _mm512_set1_ps(inv));
        r = _mm512_min_ps(_mm512_max_ps(r, _mm512_set1_ps(-limit)), _mm512_set1_ps(limit));
        /* The largest float below a half: adding a half itself would carry 0.49999997 up. */
        __m512i c = away ? _mm512_cvttps_epi32(_mm512_add_ps(r, v_copysign(_mm512_set1_ps(0x1.fffffep-2f), r)))
                         : _mm512_cvtps_epi32(r);
        _mm256_storeu_si256((__m256i *)(codes + i), _mm512_cvtepi32_epi16(c));
    }
}

#include "round.h"

/* round_block of up to eight blocks, the divisions of all in one register. */
static void round_avx512(enum rounding kind, const float *x, int n, int16_t *codes, float *scale)
{
    if (kind == ROUND_Q8_K) {
        round_row_part(kind, x, n, codes, scale);
        return;
    }
    float most[8] = { 0 }, inv[8], s[8];
    for (int b = 0; b < n / 32; b++)
        most[b] = largest_of(x + 32 * b, 32);
    const __m256 m = _mm256_loadu_ps(most), steps = _mm256_set1_ps(kind == ROUND_I16 ? 32767.0f : 127.0f);
    __mmask8 some = _mm256_cmp_ps_mask(m, _mm256_set1_ps(ACT_LEAST), _CMP_NLT_UQ);
    __m256 q = _mm256_maskz_div_ps(some, m, steps);
    _mm256_storeu_ps(inv, kind == ROUND_I16 ? _mm256_maskz_div_ps(some, steps, m) : _mm256_maskz_div_ps(some, _mm256_set1_ps(1.0f), q));
    _mm256_storeu_ps(s, kind == ROUND_I16 ? q : _mm256_cvtph_ps(_mm256_cvtps_ph(q, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)));
    for (int b = 0; b < n / 32; b++) {
        round_32(x + 32 * b, inv[b], kind == ROUND_I16 ? 32767.0f : 127.0f, kind == ROUND_Q8_0, codes + 32 * b);
        scale[b] = s[b];
    }
}

/* Codes of a block in panel order; sums of its halves. */
static void place_avx512(const int16_t *codes, bool wide, uint8_t *to, int32_t *sums)
{
    const __m512i middle = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
    __m512i c = _mm512_loadu_si512(codes), s = _mm512_madd_epi16(c, _mm512_set1_epi16(1));
    if (wide)
        _mm512_storeu_si512(to, _mm512_shuffle_epi8(c, middle));
    else
        _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi16_epi8(c));
    s = _mm512_add_epi32(s, _mm512_shuffle_epi32(s, 0x4e));
    s = _mm512_add_epi32(s, _mm512_shuffle_epi32(s, 0xb1));
    s = _mm512_add_epi32(s, _mm512_shuffle_i32x4(s, s, 0xb1));
    sums[0] = _mm512_cvtsi512_si32(s);
    sums[1] = _mm_cvtsi128_si32(_mm512_extracti32x4_epi32(s, 2));
}

/* ---- codes and scales of packed chunks ---- */

/* Which words and bits a quad is taken from; PLANE_4 with a lut is a kind of its own so that each is a constant. */
enum { PLANE_4_LUT = 100 };

INLINE int plane_of(const struct layout *l)
{
    return l->plane == PLANE_4 && l->lut ? PLANE_4_LUT : (int)l->plane;
}

/* Blocks that share words: in one span the way from word to quad is known when compiling. */
INLINE int span_of(const int plane)
{
    return plane == PLANE_6K ? 4 : plane == PLANE_4K ? 2 : 1;
}

/* Quad i (0 .. 7) of block j of span s: four elements of each of sixteen rows. */
INLINE __m512i quad(const int plane, const uint8_t *in, int s, const int j, const int i, __m512i table)
{
    const __m512i low = _mm512_set1_epi8(15);
    if (plane == PLANE_8)
        return _mm512_loadu_si512(in + 512 * s + 64 * i);
    if (plane == PLANE_6K) {
        __m512i w = _mm512_loadu_si512(in + 1024 * s + j % 2 * 512 + 64 * i);
        __m512i h = _mm512_loadu_si512(in + 2048 + 512 * s + 64 * i);
        w = j < 2 ? w : _mm512_srli_epi16(w, 4);
        h = j == 0 ? _mm512_slli_epi16(h, 4) : j == 1 ? _mm512_slli_epi16(h, 2) : j == 2 ? h : _mm512_srli_epi16(h, 2);
        return _mm512_or_si512(_mm512_and_si512(w, low), _mm512_and_si512(h, _mm512_set1_epi8(0x30)));
    }
    bool high = plane == PLANE_4K ? j == 1 : i >= 4;
    __m512i w = _mm512_loadu_si512(plane == PLANE_4K ? in + 512 * s + 64 * i : in + 256 * s + i % 4 * 64);
    w = _mm512_and_si512(high ? _mm512_srli_epi16(w, 4) : w, low);
    return plane == PLANE_4_LUT ? _mm512_shuffle_epi8(table, w) : w;
}

/* The same as 16-bit codes of elements 0 and 2, 1 and 3. */
INLINE void wide_quad(const int plane, const uint8_t *in, int s, const int j, const int i, __m512i table, __m512i *c)
{
    if (plane == PLANE_4 || plane == PLANE_4K) {
        const __m512i low = _mm512_set1_epi16(15);
        bool high = plane == PLANE_4K ? j == 1 : i >= 4;
        __m512i w = _mm512_loadu_si512(plane == PLANE_4K ? in + 512 * s + 64 * i : in + 256 * s + i % 4 * 64);
        c[0] = _mm512_and_si512(high ? _mm512_srli_epi16(w, 4) : w, low);
        c[1] = high ? _mm512_srli_epi16(w, 12) : _mm512_and_si512(_mm512_srli_epi16(w, 8), low);
        return;
    }
    __m512i q = quad(plane, in, s, j, i, table);
    c[0] = _mm512_and_si512(q, _mm512_set1_epi16(0xff));
    c[1] = _mm512_srli_epi16(q, 8);
}

/* The packed pairs are one stream, but scales lie at the end of each chunk: hardware alone follows it at half speed. */
INLINE void prefetch_block(const uint8_t *ahead, size_t step, int b)
{
    for (size_t i = 0; i < step; i += 64)
        _mm_prefetch((const char *)(ahead + (size_t)b * step + i), _MM_HINT_T0);
}

INLINE __m512i lut_of(const struct layout *l)
{
    return l->lut ? _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)l->lut)) : _mm512_setzero_si512();
}

/* out [sub-block], two tiles' scales each. */
static void expand_scales(const struct layout *l, const uint8_t *in, int subs, int index_bias, bool negate,
                          float (*out)[16])
{
    if (l->scales == SCALES_F32) {
        for (int s = 0; s < subs; s++)
            _mm512_store_ps(out[2 * s], _mm512_loadu_ps(in + 64 * s));
        return;
    }
    if (l->scales == SCALES_F16 || l->scales == SCALES_ZERO) {
        for (int s = 0; s < subs; s++)
            _mm512_store_ps(out[2 * s], _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(in + 32 * s))));
        return;
    }
    __m512 d = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)in));
    __m512i sign = _mm512_set1_epi32(negate ? (int)0x80000000 : 0);
    for (int s = 0; s < subs; s++) {
        __m512i index = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(in + 32 + 16 * s)));
        __m512 v = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_sub_epi32(index, _mm512_set1_epi32(index_bias))));
        _mm512_store_si512(out[2 * s], _mm512_xor_si512(_mm512_castps_si512(v), sign));
    }
}

/* Mins of SCALES_ZERO, from the scales expanded before. */
static void expand_zeros(const uint8_t *in, int subs, const float (*scale)[16], float (*out)[16])
{
    const __m512i sign = _mm512_set1_epi32((int)0x80000000);
    for (int s = 0; s < subs; s++) {
        __m512 zero = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(in + 16 * s))));
        __m512 v = _mm512_mul_ps(_mm512_load_ps(scale[2 * s]), zero);
        _mm512_store_si512(out[2 * s], _mm512_xor_si512(_mm512_castps_si512(v), sign));
    }
}

/* Scales of one packed chunk, and its mins where the format has them; [2 * sub-block]. */
static void expand_numbers(enum format_id id, const uint8_t *chunk, int blocks, float (*scale)[16], float (*min)[16])
{
    const struct layout *l = layout_of(id);
    int sub = formats[id].int_block, subs = blocks * 32 / sub;
    const uint8_t *scales = chunk + layout_code_bytes(l, blocks), *mins = scales + layout_scale_bytes(l, blocks, sub);
    expand_scales(l, scales, subs, l->index_bias, false, scale);
    if (min && l->scales == SCALES_ZERO)
        expand_zeros(mins, subs, (const float (*)[16])scale, min);
    else if (min)
        expand_scales(l, mins, subs, 0, true, min);
}

/* Q6_K codes are too much work to take apart for each group of rows. */
static void expand_6k(struct stripe *s)
{
    const __m512i none = _mm512_setzero_si512();
    for (int c = 0; c * CHUNK_BLOCKS < s->blocks; c++)
        for (int r = 0; r < 2; r++) {
            const uint8_t *in = s->chunk[c][r];
            uint8_t *out = s->expanded + (size_t)(2 * c + r) * CHUNK_COLS * TILE_ROWS;
            for (int span = 0; span < 2; span++)
                for (int i = 0; i < 8; i++)
                    UNROLL
                    for (int j = 0; j < 4; j++)
                        _mm512_store_si512(out + 64 * (8 * (4 * span + j) + i), quad(PLANE_6K, in, span, j, i, none));
            s->chunk[c][r] = out;
        }
}

static void begin_stripe_avx512(enum format_id id, struct stripe *s)
{
    const struct format *f = &formats[id];
    for (int c = 0, left = s->blocks, at = 0; left > 0; c++, left -= CHUNK_BLOCKS) {
        int blocks = left < CHUNK_BLOCKS ? left : CHUNK_BLOCKS, subs = blocks * 32 / f->int_block;
        for (int r = 0; r < 2 && s->scale; r++)
            expand_numbers(id, s->chunk[c][r], blocks, &s->scale[at][r], f->has_min ? &s->min[at][r] : NULL);
        at += subs;
    }
    if (s->expanded)
        expand_6k(s);
}

/* ---- integer tiles: 2 x 16 rows x T ---- */

INLINE __m512i every_lane(const uint8_t *p)
{
    int x;
    memcpy(&x, p, sizeof x);
    return _mm512_set1_epi32(x);
}

INLINE __m512 every_lane_f32(const uint8_t *p)
{
    float x;
    memcpy(&x, p, sizeof x);
    return _mm512_set1_ps(x);
}

/* Scales of sub-block sub, at in the stripe: as prepared, or from the chunk's own (scales NULL: not) as expand_scales does. */
INLINE __m512 scales_of(const int plane, const struct layout *l, const uint8_t *scales, int sub, const float *prepared)
{
    if (!scales)
        return _mm512_load_ps(prepared);
    __m512 d = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(scales + (plane == PLANE_6K ? 0 : 32 * sub))));
    if (plane != PLANE_6K)
        return d;
    __m512i index = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(scales + 32 + 16 * sub)));
    return _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_sub_epi32(index, _mm512_set1_epi32(l->index_bias))));
}

/* Accumulators f[r * T + t] and integer sums of two tiles r x T rows stay in registers. */
INLINE void add_scaled(const __m512 *ws, const int T, const __m512i *isum, const uint8_t *scales, __m512 *f)
{
    UNROLL
    for (int r = 0; r < 2; r++)
        UNROLL
        for (int t = 0; t < T; t++)
            f[r * T + t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(isum[r * T + t]),
                                           _mm512_mul_ps(ws[r], every_lane_f32(scales + 4 * t)), f[r * T + t]);
}

INLINE void add_mins(float (*min)[16], const int T, const int subs, const uint8_t *scales, const uint8_t *sums, __m512 *f)
{
    UNROLL
    for (int r = 0; r < 2; r++) {
        __m512 wm = _mm512_load_ps(min[r]);
        UNROLL
        for (int t = 0; t < T; t++)
            f[r * T + t] = _mm512_fmadd_ps(every_lane_f32(sums + 4 * t * subs),
                                           _mm512_mul_ps(wm, every_lane_f32(scales + 4 * t)), f[r * T + t]);
    }
}

/* Quads k of a sub-block in an order in which two of the same word follow each other. */
INLINE int quad_at(const int plane, const int k)
{
    return plane == PLANE_4 || plane == PLANE_4_LUT ? k % 2 * 4 + k / 2 : k;
}

/* Codes are taken apart anew for each group of rows: beside the products that costs nothing, the instructions go to
 * other ports.  Few rows add up in two chains, since one would wait for itself. */
INLINE void multiply_sub(const int plane, const bool wide, const int subs, const uint8_t *const *in, int span, const int j,
                         const int sub, __m512i table, const uint8_t *panel, const int T, __m512i *isum)
{
    const int bytes = wide ? 64 : 32, words = wide ? 2 : 1, chains = T <= 2 ? 2 : 1, quads = subs == 1 ? 8 : 4;
    __m512i other[4] = { _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512() };
    UNROLL
    for (int k = 0; k < quads; k++) {
        const int i = subs == 1 ? quad_at(plane, k) : sub * 4 + k;
        const uint8_t *a = panel + (wide ? 8 : 4) * i;
        __m512i c[2][2];
        UNROLL
        for (int r = 0; r < 2; r++)
            if (wide)
                wide_quad(plane, in[r], span, j, i, table, c[r]);
            else
                c[r][0] = quad(plane, in[r], span, j, i, table);
        UNROLL
        for (int e = 0; e < words; e++)
            UNROLL
            for (int t = 0; t < T; t++) {
                __m512i x = every_lane(a + t * bytes + 4 * e);
                UNROLL
                for (int r = 0; r < 2; r++) {
                    __m512i *to = chains == 2 && (wide ? e : k % 2) ? &other[r * T + t] : &isum[r * T + t];
                    *to = wide ? _mm512_dpwssd_epi32(*to, c[r][e], x) : _mm512_dpbusd_epi32(*to, c[r][e], x);
                }
            }
    }
    if (chains == 2)
        UNROLL
        for (int i = 0; i < 2 * T; i++)
            isum[i] = _mm512_add_epi32(isum[i], other[i]);
}

/* Block j of a span: sub-blocks at .. of the stripe, sub .. of the chunk, whose scales lie in bytes behind its beginning (0: prepared). */
INLINE void multiply_block(const int plane, const bool wide, const int subs, bool has_min, const struct layout *l,
                           const struct stripe *w, int at, const uint8_t *const *in, size_t in_bytes, int sub, int span,
                           const int j, __m512i table, const uint8_t *panel, const int T, __m512 *f)
{
    const uint8_t *own[2] = { in[0], in[1] };
    const uint8_t *scales = panel + T * (wide ? 64 : 32), *starts = scales + T * 4, *sums = starts + T * subs * 4;
    UNROLL
    for (int s = 0; s < subs; s++) {
        __m512i isum[12];
        UNROLL
        for (int i = 0; i < 2 * T; i++)
            isum[i] = every_lane(starts + 4 * (i % T * subs + s));
        /* Else the compiler keeps words that blocks share, and spills them. */
        __asm__("" : "+r"(own[0]), "+r"(own[1]));
        multiply_sub(plane, wide, subs, own, span, j, s, table, panel, T, isum);
        __m512 ws[2];
        UNROLL
        for (int r = 0; r < 2; r++)
            ws[r] = scales_of(plane, l, in_bytes ? in[r] + in_bytes : NULL, sub + s, in_bytes ? NULL : w->scale[at + s][r]);
        add_scaled(ws, T, isum, scales, f);
        if (has_min)
            add_mins(w->min[at + s], T, subs, scales, sums + 4 * s, f);
    }
}

INLINE void multiply_stripe(const int plane, const bool wide, const int subs, bool has_min, const struct layout *l,
                            const struct stripe *w, const uint8_t *panel, const int T, const uint8_t *ahead, const struct sums *sums)
{
    const int span = span_of(plane);
    const __m512i table = lut_of(l);
    __m512 f[12];
    UNROLL
    for (int i = 0; i < 2 * T; i++)
        f[i] = sums->from ? _mm512_loadu_ps(sums->from + (size_t)(i / T) * sums->tile_step + (size_t)(i % T) * sums->row_step)
                          : _mm512_setzero_ps();
    for (int b = 0; b < w->blocks;) {
        const uint8_t *const *in = w->chunk[b / CHUNK_BLOCKS];
        int first = b, end = w->blocks - b < CHUNK_BLOCKS ? w->blocks : b + CHUNK_BLOCKS;
        size_t scales = w->scale ? 0 : layout_code_bytes(l, end - b);
        for (int s = 0; b < end; s++, b += span) {
            UNROLL
            for (int j = 0; j < span; j++, panel += (size_t)T * panel_unit(wide, 32 / subs)) {
                if (ahead)
                    prefetch_block(ahead, w->next_step, b + j);
                multiply_block(plane, wide, subs, has_min, l, w, (b + j) * subs, in, scales, (b + j - first) * subs, s, j, table,
                               panel, T, f);
            }
        }
    }
    UNROLL
    for (int i = 0; i < 2 * T; i++)
        _mm512_storeu_ps(sums->to + (size_t)(i / T) * sums->tile_step + (size_t)(i % T) * sums->row_step, f[i]);
}

/* Each shape a function of its own so that registers are its accumulators. */
typedef void stripe_shape(bool wide, bool has_min, const struct layout *l, const struct stripe *w, const uint8_t *panel,
                          const uint8_t *ahead, const struct sums *sums);
#define SHAPE(PLANE, SUBS, T)                                                                                            \
    static void shape_##PLANE##_##SUBS##_##T(bool wide, bool has_min, const struct layout *l, const struct stripe *w,   \
                                             const uint8_t *panel, const uint8_t *ahead, const struct sums *sums)       \
    {                                                                                                                    \
        if (wide)                                                                                                        \
            multiply_stripe(PLANE, true, SUBS, has_min, l, w, panel, T, ahead, sums);                                    \
        else                                                                                                             \
            multiply_stripe(PLANE, false, SUBS, has_min, l, w, panel, T, ahead, sums);                                   \
    }
#define SHAPES(PLANE, SUBS)                                                                       \
    SHAPE(PLANE, SUBS, 1) SHAPE(PLANE, SUBS, 2) SHAPE(PLANE, SUBS, 3) SHAPE(PLANE, SUBS, 4)       \
    SHAPE(PLANE, SUBS, 5) SHAPE(PLANE, SUBS, 6)                                                   \
    static stripe_shape *const shapes_##PLANE##_##SUBS[] = {                                      \
        shape_##PLANE##_##SUBS##_1, shape_##PLANE##_##SUBS##_2, shape_##PLANE##_##SUBS##_3,       \
        shape_##PLANE##_##SUBS##_4, shape_##PLANE##_##SUBS##_5, shape_##PLANE##_##SUBS##_6,       \
    };
SHAPES(PLANE_4, 1)
SHAPES(PLANE_4, 2)
SHAPES(PLANE_4_LUT, 1)
SHAPES(PLANE_4K, 1)
SHAPES(PLANE_6K, 2)
SHAPES(PLANE_8, 1)
SHAPES(PLANE_8, 2)
static const int widths[] = { 6, 5, 4, 3, 2, 1 };

static void multiply_stripe_avx512(enum format_id id, const struct stripe *w, bool wide, const uint8_t *panel, int T,
                                   const uint8_t *ahead, const struct sums *sums)
{
    const struct layout *l = layout_of(id);
    bool halves = formats[id].int_block == 16;
    stripe_shape *const *shapes = shapes_PLANE_8_1;
    switch (plane_of(l)) {
    case PLANE_4: shapes = halves ? shapes_PLANE_4_2 : shapes_PLANE_4_1; break;
    case PLANE_4_LUT: shapes = shapes_PLANE_4_LUT_1; break;
    case PLANE_4K: shapes = shapes_PLANE_4K_1; break;
    case PLANE_6K: shapes = w->expanded ? shapes_PLANE_8_2 : shapes_PLANE_6K_2; break;
    default: shapes = halves ? shapes_PLANE_8_2 : shapes_PLANE_8_1;
    }
    shapes[T - 1](wide, formats[id].has_min, l, w, panel, ahead, sums);
}

/* ---- float tiles: 2 x 16 rows x T ---- */

typedef __m512 vf;
enum { VF_N = 16, TILE_VECTORS = 2, FLOAT_GROUP = 14, DIRECT_GROUP = 4 };
#define FLOAT_COUNTS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14)
#define DIRECT_COUNTS(X) X(1) X(2) X(3) X(4)
#define vf_load _mm512_loadu_ps
#define vf_store _mm512_storeu_ps
#define vf_set _mm512_set1_ps
#define vf_add _mm512_add_ps
#define vf_fma _mm512_fmadd_ps

INLINE vf vf_widen(const enum format_id f, const uint8_t *p)
{
    return f == FORMAT_F32 ? _mm512_loadu_ps(p) : _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

INLINE vf vf_even(vf x)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x), 16));
}

INLINE vf vf_odd(vf x)
{
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32((int)0xffff0000)));
}

/* Pairs, then fours inside each quarter; then the quarters. */
INLINE void vf_transpose(vf *x)
{
    vf a[16], b[16];
    UNROLL
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
        a[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    }
    UNROLL
    for (int i = 0; i < 16; i += 4)
        UNROLL
        for (int h = 0; h < 2; h++) {
            b[i + 2 * h] = _mm512_shuffle_ps(a[i + h], a[i + h + 2], 0x44);
            b[i + 2 * h + 1] = _mm512_shuffle_ps(a[i + h], a[i + h + 2], 0xee);
        }
    UNROLL
    for (int c = 0; c < 4; c++) {       /* b[4 g + c]: rows 4 g .., columns c, 4 + c, 8 + c, 12 + c */
        vf p = _mm512_shuffle_f32x4(b[c], b[4 + c], 0x88), q = _mm512_shuffle_f32x4(b[c], b[4 + c], 0xdd);
        vf r = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0x88), s = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0xdd);
        x[c] = _mm512_shuffle_f32x4(p, r, 0x88);
        x[8 + c] = _mm512_shuffle_f32x4(p, r, 0xdd);
        x[4 + c] = _mm512_shuffle_f32x4(q, s, 0x88);
        x[12 + c] = _mm512_shuffle_f32x4(q, s, 0xdd);
    }
}

#include "float_lanes.h"

/* value = scale * code + min, each rounded, as to_f32 has it. */
INLINE void expand_plane(const int plane, const struct layout *l, const uint8_t *in, int blocks, int sub, float (*scale)[16],
                         float (*min)[16], float *w)
{
    const __m512i table = lut_of(l), low = _mm512_set1_epi32(255), bias = _mm512_set1_epi32(l->bias);
    const int span = span_of(plane);
    for (int b = 0; b < blocks; b++)
        for (int i = 0; i < 8; i++) {
            __m512i q = quad(plane, in, b / span, b % span, i, table);
            int at = 2 * ((32 * b + 4 * i) / sub);
            UNROLL
            for (int e = 0; e < 4; e++, q = _mm512_srli_epi32(q, 8), w += FLOAT_ROWS) {
                __m512 v = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_and_si512(q, low), bias));
                v = _mm512_mul_ps(v, _mm512_load_ps(scale[at]));
                _mm512_storeu_ps(w, min ? _mm512_add_ps(v, _mm512_load_ps(min[at])) : v);
            }
        }
}

static void expand_packed_avx512(enum format_id id, const uint8_t *chunk, int blocks, float *w)
{
    const struct layout *l = layout_of(id);
    int sub = formats[id].int_block;
    float scale[32][16] __attribute__((aligned(64))), mins[32][16] __attribute__((aligned(64)));
    float(*min)[16] = formats[id].has_min ? mins : NULL;
    expand_numbers(id, chunk, blocks, scale, min);
    switch (plane_of(l)) {
    case PLANE_4: expand_plane(PLANE_4, l, chunk, blocks, sub, scale, min, w); break;
    case PLANE_4_LUT: expand_plane(PLANE_4_LUT, l, chunk, blocks, sub, scale, min, w); break;
    case PLANE_4K: expand_plane(PLANE_4K, l, chunk, blocks, sub, scale, min, w); break;
    case PLANE_6K: expand_plane(PLANE_6K, l, chunk, blocks, sub, scale, min, w); break;
    default: expand_plane(PLANE_8, l, chunk, blocks, sub, scale, min, w);
    }
}

static const struct tile_ops tile_avx512 = {
    .narrow = true,
    .group = 6,
    .widths = widths,
    .transpose = transpose_avx512,
    .round = round_avx512,
    .place = place_avx512,
    .begin_stripe = begin_stripe_avx512,
    .multiply_stripe = multiply_stripe_avx512,
    .expand_packed = expand_packed_avx512,
    FLOAT_OPS,
};

/* ---- peaks ---- */

#define PEAK_LOOP(NAME, TYPE, ZERO, STEP, OPS)                                    \
    static double NAME(int rounds)                                                \
    {                                                                             \
        TYPE a[PEAK_CHAINS], x = ZERO;                                            \
        UNROLL                                                                    \
        for (int i = 0; i < PEAK_CHAINS; i++)                                     \
            a[i] = ZERO;                                                          \
        __asm__ volatile("" : "+v"(x));                                           \
        for (int r = 0; r < rounds; r++) {                                        \
            UNROLL                                                                \
            for (int i = 0; i < PEAK_CHAINS; i++)                                 \
                a[i] = STEP;                                                      \
            UNROLL                                                                \
            for (int i = 0; i < PEAK_CHAINS; i++)                                 \
                __asm__ volatile("" : "+v"(a[i]));                                \
        }                                                                         \
        return (double)(OPS) * PEAK_CHAINS * rounds;                              \
    }
PEAK_LOOP(peak_int8, __m512i, _mm512_setzero_si512(), _mm512_dpbusd_epi32(a[i], x, x), 128)
PEAK_LOOP(peak_int16, __m512i, _mm512_setzero_si512(), _mm512_dpwssd_epi32(a[i], x, x), 64)
PEAK_LOOP(peak_f32, __m512, _mm512_setzero_ps(), _mm512_fmadd_ps(x, x, a[i]), 32)

static double peak_read(const void *p, size_t bytes)
{
    __m512i sum[4] = { _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512() };
    for (size_t i = 0; i + 256 <= bytes; i += 256)
        UNROLL
        for (int j = 0; j < 4; j++) {
            const uint8_t *at = (const uint8_t *)p + i + 64 * j;
            _mm_prefetch((const char *)(at + PREFETCH_BYTES), _MM_HINT_T0);
            sum[j] = _mm512_xor_si512(sum[j], _mm512_loadu_si512(at));
        }
    __asm__ volatile("" : : "v"(sum[0]), "v"(sum[1]), "v"(sum[2]), "v"(sum[3]));
    return (double)bytes;
}

static const struct peak_ops peak_avx512 = { peak_int8, peak_int16, peak_f32, peak_read };

static bool cpu_has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2");
}

const struct kernels kernels_avx512 = {
    .name = "avx512",
    .supported = cpu_has_avx512,
    VECTOR_OPS,
    .pack = tiles_pack,
    .apply = tiles_apply,
    .apply_each = tiles_apply_each,
    .apply_glu = tiles_apply_glu,
    .tile = &tile_avx512,
    .peak = &peak_avx512,
};
#else

static bool never(void)
{
    return false;
}
const struct kernels kernels_avx512 = { .name = "avx512", .supported = never };

#endif
