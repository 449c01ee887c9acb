/* lanes_generic.h - sixteen float lanes in plain C: the meaning of every v16 operation.
 *
 * vectors.h is written in these operations alone; each set brings its own v16 and so computes the same thing. */
#ifndef QDELTA_LANES_H
#define QDELTA_LANES_H

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    float f[16];
} v16;
#define LANES_IN_MEMORY         /* blocks of sixteen accumulators gain nothing here */

/* Inlined, these make sanitizer builds take minutes. */
#ifdef __SANITIZE_ADDRESS__
#define LANE_FN static __attribute__((noinline, unused))
#else
#define LANE_FN static inline
#endif

#define LANES for (int l_ = 0; l_ < 16; l_++)

LANE_FN v16 v_set(float x)
{
    v16 r;
    LANES r.f[l_] = x;
    return r;
}

LANE_FN v16 v_load(const float *p)
{
    v16 r;
    memcpy(r.f, p, sizeof r.f);
    return r;
}

LANE_FN void v_store(float *p, v16 a)
{
    memcpy(p, a.f, sizeof a.f);
}

/* The first n < 16 lanes; the others are +0. */
LANE_FN v16 v_load_n(const float *p, int n)
{
    v16 r = { { 0 } };
    memcpy(r.f, p, (size_t)n * sizeof *p);
    return r;
}

LANE_FN void v_store_n(float *p, v16 a, int n)
{
    memcpy(p, a.f, (size_t)n * sizeof *p);
}

#define LANEWISE(NAME, EXPR)                    \
    LANE_FN v16 NAME(v16 a, v16 b)        \
    {                                           \
        v16 r;                                  \
        LANES {                                 \
            float x = a.f[l_], y = b.f[l_];     \
            r.f[l_] = (EXPR);                   \
        }                                       \
        return r;                               \
    }
LANEWISE(v_add, x + y)
LANEWISE(v_sub, x - y)
LANEWISE(v_mul, x * y)
LANEWISE(v_div, x / y)
LANEWISE(v_max, x > y ? x : y)      /* the second when either is NaN */
LANEWISE(v_min, x < y ? x : y)      /* likewise */
LANEWISE(v_copysign, copysignf(x, y))
#undef LANEWISE

/* a * b + c rounded once. */
LANE_FN v16 v_fma(v16 a, v16 b, v16 c)
{
    v16 r;
    LANES r.f[l_] = fmaf(a.f[l_], b.f[l_], c.f[l_]);
    return r;
}

LANE_FN v16 v_abs(v16 a)
{
    LANES a.f[l_] = fabsf(a.f[l_]);
    return a;
}

/* To the nearest integer, ties to even. */
LANE_FN v16 v_round(v16 a)
{
    LANES a.f[l_] = rintf(a.f[l_]);
    return a;
}

/* 2^n for integral n in -126 .. 127; unspecified for NaN. */
LANE_FN v16 v_pow2(v16 n)
{
    LANES {
        uint32_t bits = n.f[l_] >= -126 && n.f[l_] <= 127 ? (uint32_t)((int32_t)n.f[l_] + 127) << 23 : 0;
        memcpy(&n.f[l_], &bits, sizeof bits);
    }
    return n;
}

/* a < b ? x : y, lane by lane. */
LANE_FN v16 v_select_lt(v16 a, v16 b, v16 x, v16 y)
{
    v16 r;
    LANES r.f[l_] = a.f[l_] < b.f[l_] ? x.f[l_] : y.f[l_];
    return r;
}

/* The tree at the end of sums over lanes. */
LANE_FN float v_sum(v16 a)
{
    for (int w = 8; w; w /= 2)
        for (int i = 0; i < w; i++)
            a.f[i] = a.f[i] + a.f[i + w];
    return a.f[0];
}

/* Largest lane; lanes hold no NaN. */
LANE_FN float v_max_lane(v16 a)
{
    float m = a.f[0];
    LANES m = a.f[l_] > m ? a.f[l_] : m;
    return m;
}

/* Sixteen double sums: acc[i] += a[i]. */
LANE_FN void v_add_f64(double acc[16], v16 a)
{
    LANES acc[l_] += (double)a.f[l_];
}

#endif
