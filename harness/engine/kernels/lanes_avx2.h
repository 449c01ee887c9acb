/* lanes_avx2.h - v16 as two ymm registers; the meaning stands in lanes_generic.h. */
#ifndef QDELTA_LANES_H
#define QDELTA_LANES_H

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    __m256 low, high;
} v16;

static inline v16 v_set(float x)
{
    return (v16){ _mm256_set1_ps(x), _mm256_set1_ps(x) };
}

static inline v16 v_load(const float *p)
{
    return (v16){ _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) };
}

static inline void v_store(float *p, v16 a)
{
    _mm256_storeu_ps(p, a.low);
    _mm256_storeu_ps(p + 8, a.high);
}

/* All ones in the first n lanes of eight. */
static inline __m256i first_lanes(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline v16 v_load_n(const float *p, int n)
{
    return (v16){ _mm256_maskload_ps(p, first_lanes(n)), n > 8 ? _mm256_maskload_ps(p + 8, first_lanes(n - 8)) : _mm256_setzero_ps() };
}

static inline void v_store_n(float *p, v16 a, int n)
{
    _mm256_maskstore_ps(p, first_lanes(n), a.low);
    if (n > 8)
        _mm256_maskstore_ps(p + 8, first_lanes(n - 8), a.high);
}

#define LANEWISE(NAME, OP)                                          \
    static inline v16 NAME(v16 a, v16 b)                            \
    {                                                               \
        return (v16){ OP(a.low, b.low), OP(a.high, b.high) };       \
    }
LANEWISE(v_add, _mm256_add_ps)
LANEWISE(v_sub, _mm256_sub_ps)
LANEWISE(v_mul, _mm256_mul_ps)
LANEWISE(v_div, _mm256_div_ps)
LANEWISE(v_max, _mm256_max_ps)
LANEWISE(v_min, _mm256_min_ps)

static inline __m256 copysign8(__m256 a, __m256 b)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(sign, a), _mm256_and_ps(sign, b));
}
LANEWISE(v_copysign, copysign8)
#undef LANEWISE

static inline v16 v_fma(v16 a, v16 b, v16 c)
{
    return (v16){ _mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high) };
}

static inline v16 v_abs(v16 a)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return (v16){ _mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high) };
}

static inline v16 v_round(v16 a)
{
    return (v16){ _mm256_round_ps(a.low, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                  _mm256_round_ps(a.high, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC) };
}

static inline __m256 pow2_8(__m256 n)
{
    __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(e, 23));
}

static inline v16 v_pow2(v16 n)
{
    return (v16){ pow2_8(n.low), pow2_8(n.high) };
}

static inline v16 v_select_lt(v16 a, v16 b, v16 x, v16 y)
{
    return (v16){ _mm256_blendv_ps(y.low, x.low, _mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ)),
                  _mm256_blendv_ps(y.high, x.high, _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ)) };
}

static inline float v_sum(v16 a)
{
    __m256 s = _mm256_add_ps(a.low, a.high);
    __m128 t = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    __m128 u = _mm_add_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_add_ss(u, _mm_movehdup_ps(u)));
}

static inline float v_max_lane(v16 a)
{
    __m256 m = _mm256_max_ps(a.low, a.high);
    __m128 t = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    t = _mm_max_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_max_ss(t, _mm_movehdup_ps(t)));
}

static inline void v_add_f64(double acc[16], v16 a)
{
    const __m128 part[4] = { _mm256_castps256_ps128(a.low), _mm256_extractf128_ps(a.low, 1),
                             _mm256_castps256_ps128(a.high), _mm256_extractf128_ps(a.high, 1) };
    for (int i = 0; i < 4; i++)
        _mm256_storeu_pd(acc + 4 * i, _mm256_add_pd(_mm256_loadu_pd(acc + 4 * i), _mm256_cvtps_pd(part[i])));
}

#endif
