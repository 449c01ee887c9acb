/* lanes.h - the widest float vectors of the instruction set that this file is compiled for.
 *
 * A lane is a candidate scale of one block, or one of several blocks: every sum still runs over its block in
 * order and the bits are the same for any width.  Contraction is off; vf_fma, one rounding, is asked for by name and
 * the same everywhere. */
#ifndef QDELTA_QUANTIZERS_LANES_H
#define QDELTA_QUANTIZERS_LANES_H

#include <math.h>

#if defined(__AVX512F__)
#include <immintrin.h>
typedef __m512 vf;
#define vf_fma(a, b, c) _mm512_fmadd_ps(a, b, c)
#define vd_fma(a, b, c) _mm512_fmadd_pd(a, b, c)
#define vd_widen(p) _mm512_cvtps_pd(_mm256_loadu_ps(p))
#define vf_min(a, b) _mm512_min_ps(a, b)
#define vf_max(a, b) _mm512_max_ps(a, b)
#define vf_set(x) _mm512_set1_ps(x)
#define vf_load(p) _mm512_loadu_ps(p)
#define vf_store(p, v) _mm512_storeu_ps(p, v)
#define vf_abs(v) _mm512_abs_ps(v)
typedef __m512d vd;
#define vd_set(x) _mm512_set1_pd(x)
#define vd_load(p) _mm512_loadu_pd(p)
#define vd_store(p, v) _mm512_storeu_pd(p, v)
#define vf_if_less(a, b, yes, no) _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes)
#elif defined(__AVX__) && defined(__FMA__)
#include <immintrin.h>
typedef __m256 vf;
#define vf_fma(a, b, c) _mm256_fmadd_ps(a, b, c)
#define vd_fma(a, b, c) _mm256_fmadd_pd(a, b, c)
#define vd_widen(p) _mm256_cvtps_pd(_mm_loadu_ps(p))
#define vf_min(a, b) _mm256_min_ps(a, b)
#define vf_max(a, b) _mm256_max_ps(a, b)
#define vf_set(x) _mm256_set1_ps(x)
#define vf_load(p) _mm256_loadu_ps(p)
#define vf_store(p, v) _mm256_storeu_ps(p, v)
#define vf_abs(v) _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v)
typedef __m256d vd;
#define vd_set(x) _mm256_set1_pd(x)
#define vd_load(p) _mm256_loadu_pd(p)
#define vd_store(p, v) _mm256_storeu_pd(p, v)
#define vf_if_less(a, b, yes, no) _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ))
#elif defined(__SSE2__)
#include <emmintrin.h>
typedef __m128 vf;
#define vf_min(a, b) _mm_min_ps(a, b)
#define vf_max(a, b) _mm_max_ps(a, b)
#define vf_set(x) _mm_set1_ps(x)
#define vf_load(p) _mm_loadu_ps(p)
#define vf_store(p, v) _mm_storeu_ps(p, v)
#define vf_abs(v) _mm_andnot_ps(_mm_set1_ps(-0.0f), v)
typedef __m128d vd;
#define vd_set(x) _mm_set1_pd(x)
#define vd_load(p) _mm_loadu_pd(p)
#define vd_store(p, v) _mm_storeu_pd(p, v)
#define vd_widen(p) _mm_cvtps_pd(_mm_castpd_ps(_mm_load_sd((const double *)(const void *)(p))))
/* Slow, but only processors without AVX2 come here. */
#define LANEWISE(name, type, lanes, fused)          \
    static inline type name(type a, type b, type c) \
    {                                               \
        for (int i = 0; i < lanes; i++)             \
            c[i] = fused(a[i], b[i], c[i]);         \
        return c;                                   \
    }
LANEWISE(vf_fma, __m128, 4, fmaf)
LANEWISE(vd_fma, __m128d, 2, fma)
#undef LANEWISE
static inline vf vf_if_less(vf a, vf b, vf yes, vf no)
{
    vf m = _mm_cmplt_ps(a, b);
    return _mm_or_ps(_mm_and_ps(m, yes), _mm_andnot_ps(m, no));
}
#elif defined(__aarch64__)
#include <arm_neon.h>
typedef float32x4_t vf;
static inline vf vf_if_less(vf a, vf b, vf yes, vf no)
{
    return vbslq_f32(vcltq_f32(a, b), yes, no);
}
/* By comparison: vminq_f32 and vmaxq_f32 give NaN where the others give b. */
#define vf_min(a, b) vf_if_less(a, b, a, b)
#define vf_max(a, b) vf_if_less(b, a, a, b)
#define vf_set(x) vdupq_n_f32(x)
#define vf_load(p) vld1q_f32(p)
#define vf_store(p, v) vst1q_f32(p, v)
#define vf_abs(v) vabsq_f32(v)
#define vf_fma(a, b, c) vfmaq_f32(c, a, b)
typedef float64x2_t vd;
#define vd_set(x) vdupq_n_f64(x)
#define vd_load(p) vld1q_f64(p)
#define vd_store(p, v) vst1q_f64(p, v)
#define vd_fma(a, b, c) vfmaq_f64(c, a, b)
#define vd_widen(p) vcvt_f64_f32(vld1_f32(p))
#else
typedef float vf;
#define vf_min(a, b) ((a) < (b) ? (a) : (b))
#define vf_max(a, b) ((a) > (b) ? (a) : (b))
#define vf_set(x) ((float)(x))
#define vf_load(p) (*(p))
#define vf_store(p, v) (*(p) = (v))
#define vf_abs(v) ((v) < 0 ? -(v) : (v))
typedef double vd;
#define vd_set(x) ((double)(x))
#define vd_load(p) (*(p))
#define vd_store(p, v) (*(p) = (v))
#define vf_if_less(a, b, yes, no) ((a) < (b) ? (yes) : (no))
#define vf_fma(a, b, c) fmaf(a, b, c)
#define vd_fma(a, b, c) fma(a, b, c)
#define vd_widen(p) ((double)*(p))
#endif

/* Before a loop of a few fixed turns over an array of vectors: without it the array stays in memory. */
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum { VF_LANES = sizeof(vf) / sizeof(float), VD_LANES = sizeof(vd) / sizeof(double) };

/* Round half to even; exact for |x| < 2^22. */
#define vf_rint(x) (((x) + vf_set(12582912.0f)) - vf_set(12582912.0f))

#endif
