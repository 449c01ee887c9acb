/* functions.h - exp, tanh, silu and gelu over sixteen lanes, written in the operations of a lanes_*.h.
 *
 * Errors, against the exact function, over all finite floats (tests/unit/test_kernels_functions.c):
 * exp <= 0.8 ulp (0.63 where the result is normal), tanh <= 1.5 ulp, silu <= 1.5 ulp, gelu <= 1.5 ulp; NaN gives NaN. */
#ifndef QDELTA_FUNCTIONS_H
#define QDELTA_FUNCTIONS_H

/* e^(x + low) = *m * 2^*n with m in 0.70 .. 1.42, for x in -120 .. 89 and |low| < 1e-5.
 * x = n ln 2 + r, |r| <= ln 2 / 2; the upper part of ln 2 has nine bits, so n times it is exact, and what r loses when the
 * lower part comes to it goes to low.  e^r = 1 + r + r^2 P(r), P from Chebyshev nodes, 0.01 * 2^-24 off; 1 + r is carried in
 * two floats, so that only the last addition rounds in the size of the result. */
static inline void exp_parts(v16 x, v16 low, v16 *m, v16 *n)
{
    const v16 one = v_set(1.0f), ln2_low = v_set(0x1.bd0106p-13f);
    *n = v_round(v_mul(x, v_set(0x1.715476p+0f)));
    v16 high = v_fma(*n, v_set(-0.693359375f), x), r = v_fma(*n, ln2_low, high);
    low = v_add(low, v_fma(*n, ln2_low, v_sub(high, r)));
    v16 p = v_set(0x1.a1256cp-13f);
    p = v_fma(p, r, v_set(0x1.6d43bp-10f));
    p = v_fma(p, r, v_set(0x1.1110ep-7f));
    p = v_fma(p, r, v_set(0x1.5554e8p-5f));
    p = v_fma(p, r, v_set(0x1.555556p-3f));
    p = v_fma(p, r, v_set(0.5f));
    v16 sum = v_add(one, r), rest = v_sub(r, v_sub(sum, one)), q = v_mul(v_mul(r, r), p);
    *m = v_add(sum, v_add(rest, v_fma(low, v_add(sum, q), q)));
}

/* x * 2^n in two steps: subnormal results are rounded once. */
static inline v16 scale_pow2(v16 x, v16 n)
{
    v16 half = v_round(v_mul(n, v_set(0.5f)));
    return v_mul(v_mul(x, v_pow2(half)), v_pow2(v_sub(n, half)));
}

static inline v16 v_exp(v16 x)
{
    v16 m, n;
    x = v_min(v_set(89.0f), v_max(v_set(-120.0f), x));     /* x second: NaN stays */
    exp_parts(x, v_set(0.0f), &m, &n);
    return scale_pow2(m, n);
}

/* |x| < 0.625: x + x^3 P(x^2), P from Chebyshev nodes, 0.25 * 2^-24 off; else 1 - 2 e / (1 + e), e = exp(-2 |x|). */
static inline v16 v_tanh(v16 x)
{
    v16 a = v_abs(x), t = v_mul(x, x), one = v_set(1.0f);
    v16 p = v_set(-0x1.8f8de4p-8f);
    p = v_fma(p, t, v_set(0x1.58048ep-6f));
    p = v_fma(p, t, v_set(-0x1.b9258ap-5f));
    p = v_fma(p, t, v_set(0x1.110e1cp-3f));
    p = v_fma(p, t, v_set(-0x1.555552p-2f));
    v16 small = v_fma(v_mul(p, t), x, x);
    v16 e = v_exp(v_mul(a, v_set(-2.0f)));
    v16 large = v_sub(one, v_div(v_add(e, e), v_add(one, e)));
    return v_select_lt(a, v_set(0.625f), small, v_copysign(large, x));
}

/* x / (1 + exp(-z)) for z = zh + zl of x's sign.  With e = exp(-|z|) = m 2^n: x / (1 + e), or below zero
 * x m / (1 + e) and the power of two last, so that nothing underflows early.  The quotient q is corrected by its
 * remainder, which knows the roundings of x m and 1 + e: what is left is the error of m and half an ulp. */
static inline v16 times_sigmoid(v16 x, v16 zh, v16 zl)
{
    v16 m, n, one = v_set(1.0f), zero = v_set(0.0f);
    v16 a = v_max(v_set(-120.0f), v_sub(zero, v_abs(zh)));
    exp_parts(a, v_select_lt(zh, zero, zl, v_sub(zero, zl)), &m, &n);
    v16 e = scale_pow2(m, n), below = v_add(one, e), below_low = v_sub(e, v_sub(below, one));
    v16 top = v_select_lt(x, zero, v_mul(x, m), x);
    v16 top_low = v_select_lt(x, zero, v_fma(x, m, v_sub(zero, top)), zero);
    v16 inv = v_div(one, below), q = v_mul(top, inv), minus_q = v_sub(zero, q);
    v16 rest = v_fma(minus_q, below_low, v_add(v_fma(minus_q, below, top), top_low));
    q = v_fma(rest, inv, q);
    q = v_select_lt(x, zero, scale_pow2(q, n), q);
    return v_select_lt(v_set(120.0f), x, x, q);
}

static inline v16 v_silu(v16 x)
{
    v16 c = v_max(v_set(-120.0f), x);
    return times_sigmoid(c, c, v_set(0.0f));
}

/* 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) = x / (1 + exp(-z)), z = x (a + b x^2), a = 2 sqrt(2 / pi),
 * b = 0.044715 a.  z reaches 100, so an error of z in the last bit would be one of 50 ulp in the result:
 * z is carried in two floats. */
static inline v16 v_gelu(v16 x)
{
    const v16 ah = v_set(0x1.988454p+0f), al = v_set(-0x1.857936p-25f);
    const v16 bh = v_set(0x1.2444f2p-4f), bl = v_set(0x1.49b16ap-29f), zero = v_set(0.0f);
    v16 low = v_max(v_set(-12.0f), x), c = v_min(v_set(12.0f), low);       /* z(12) = 142: e is 0 */
    v16 sh = v_mul(c, c), sl = v_fma(c, c, v_sub(zero, sh));
    v16 ph = v_mul(bh, sh), pl = v_fma(bh, sh, v_sub(zero, ph));
    pl = v_fma(bh, sl, v_fma(bl, sh, pl));
    v16 wh = v_add(ah, ph), back = v_sub(wh, ah);
    v16 wl = v_add(v_sub(ah, v_sub(wh, back)), v_sub(ph, back));
    wl = v_add(v_add(wl, pl), al);
    v16 zh = v_mul(c, wh), zl = v_fma(c, wl, v_fma(c, wh, v_sub(zero, zh)));
    return times_sigmoid(low, zh, zl);
}

#endif
