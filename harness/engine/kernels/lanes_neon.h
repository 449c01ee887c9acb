/* lanes_neon.h - v16 as four q registers; the meaning stands in lanes_generic.h.  Base AArch64 has all of it. */
#ifndef QDELTA_LANES_H
#define QDELTA_LANES_H

#include <arm_neon.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    float32x4_t a, b, c, d;     /* lanes 0 .., 4 .., 8 .., 12 .. */
} v16;

static inline v16 v_set(float x)
{
    float32x4_t r = vdupq_n_f32(x);
    return (v16){ r, r, r, r };
}

static inline v16 v_load(const float *p)
{
    return (v16){ vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12) };
}

static inline void v_store(float *p, v16 x)
{
    vst1q_f32(p, x.a);
    vst1q_f32(p + 4, x.b);
    vst1q_f32(p + 8, x.c);
    vst1q_f32(p + 12, x.d);
}

static inline v16 v_load_n(const float *p, int n)
{
    float part[16] = { 0 };
    memcpy(part, p, (size_t)n * sizeof *p);
    return v_load(part);
}

static inline void v_store_n(float *p, v16 x, int n)
{
    float part[16];
    v_store(part, x);
    memcpy(p, part, (size_t)n * sizeof *p);
}

/* vmaxq_f32 and vminq_f32 would return NaN where the definition returns the second operand. */
static inline float32x4_t larger4(float32x4_t x, float32x4_t y)
{
    return vbslq_f32(vcgtq_f32(x, y), x, y);
}

static inline float32x4_t smaller4(float32x4_t x, float32x4_t y)
{
    return vbslq_f32(vcltq_f32(x, y), x, y);
}

static inline float32x4_t copysign4(float32x4_t x, float32x4_t y)
{
    return vbslq_f32(vdupq_n_u32(0x80000000u), y, x);
}

#define LANEWISE(NAME, OP)                                                              \
    static inline v16 NAME(v16 x, v16 y)                                                \
    {                                                                                   \
        return (v16){ OP(x.a, y.a), OP(x.b, y.b), OP(x.c, y.c), OP(x.d, y.d) };         \
    }
LANEWISE(v_add, vaddq_f32)
LANEWISE(v_sub, vsubq_f32)
LANEWISE(v_mul, vmulq_f32)
LANEWISE(v_div, vdivq_f32)
LANEWISE(v_max, larger4)
LANEWISE(v_min, smaller4)
LANEWISE(v_copysign, copysign4)
#undef LANEWISE

static inline v16 v_fma(v16 x, v16 y, v16 z)
{
    return (v16){ vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c), vfmaq_f32(z.d, x.d, y.d) };
}

static inline v16 v_abs(v16 x)
{
    return (v16){ vabsq_f32(x.a), vabsq_f32(x.b), vabsq_f32(x.c), vabsq_f32(x.d) };
}

static inline v16 v_round(v16 x)
{
    return (v16){ vrndnq_f32(x.a), vrndnq_f32(x.b), vrndnq_f32(x.c), vrndnq_f32(x.d) };
}

static inline float32x4_t pow2_4(float32x4_t n)
{
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)), 23));
}

static inline v16 v_pow2(v16 n)
{
    return (v16){ pow2_4(n.a), pow2_4(n.b), pow2_4(n.c), pow2_4(n.d) };
}

static inline v16 v_select_lt(v16 a, v16 b, v16 x, v16 y)
{
    return (v16){ vbslq_f32(vcltq_f32(a.a, b.a), x.a, y.a), vbslq_f32(vcltq_f32(a.b, b.b), x.b, y.b),
                  vbslq_f32(vcltq_f32(a.c, b.c), x.c, y.c), vbslq_f32(vcltq_f32(a.d, b.d), x.d, y.d) };
}

static inline float v_sum(v16 x)
{
    float32x4_t t = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
    return vpadds_f32(vadd_f32(vget_low_f32(t), vget_high_f32(t)));
}

static inline float v_max_lane(v16 x)
{
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.a, x.b), vmaxq_f32(x.c, x.d)));
}

static inline void v_add_f64(double acc[16], v16 x)
{
    const float32x4_t part[4] = { x.a, x.b, x.c, x.d };
    for (int i = 0; i < 4; i++, acc += 4) {
        vst1q_f64(acc, vaddq_f64(vld1q_f64(acc), vcvt_f64_f32(vget_low_f32(part[i]))));
        vst1q_f64(acc + 2, vaddq_f64(vld1q_f64(acc + 2), vcvt_high_f64_f32(part[i])));
    }
}

#endif
