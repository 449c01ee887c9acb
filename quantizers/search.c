#define SEARCH_SET search_generic
#include "search_lanes.h"

#include <math.h>

#include "model/model.h"

const struct search_kernels *search_best(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return &search_avx512;
    if (__builtin_cpu_supports("avx2"))
        return &search_avx2;
#endif
    return &search_generic;
}

/* Blocks whose largest magnitude is below this count as all zero (ggml's constant). */
static const float least_amax = 1e-15f;

static void clear_codes(void *codes, int n)
{
    for (int i = 0; i < n; i++)
        ((uint8_t *)codes)[i] = 0;
}

static float signed_max(int n, const float *x, float *amax)
{
    float max = 0;
    *amax = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > *amax) {
            *amax = fabsf(x[i]);
            max = x[i];
        }
    return max;
}

float search_qx(int n, int nmax, const float *x, const float *w, int8_t *codes)
{
    float amax, max = signed_max(n, x, &amax), squares[SEARCH_MAX];
    clear_codes(codes, n);
    if (amax < least_amax)
        return 0;
    if (!w) {
        for (int i = 0; i < n; i++)
            squares[i] = x[i] * x[i];
        w = squares;
    }
    /* candidate 0 is the plain scale, then -9..9 tenths of a step without 0 */
    enum { TRIES = 19, LANES = 32 };
    float inv[LANES] = { 0 }, sum_xl[LANES], sum_l2[LANES];
    inv[0] = (float)-nmax / max;
    for (int k = -9, c = 1; k <= 9; k++)
        if (k)
            inv[c++] = -((float)nmax + 0.1f * (float)k) / max;
    search_best()->qx(n, nmax, x, w, LANES, inv, sum_xl, sum_l2);
    float scale = sum_l2[0] != 0 ? sum_xl[0] / sum_l2[0] : 0, best = scale * sum_xl[0];
    int chosen = 0;
    for (int c = 1; c < TRIES; c++)
        if (sum_l2[c] > 0 && sum_xl[c] * sum_xl[c] > best * sum_l2[c]) {
            scale = sum_xl[c] / sum_l2[c];
            best = scale * sum_xl[c];
            chosen = c;
        }
    for (int i = 0; i < n; i++)
        codes[i] = (int8_t)(nmax + clamp_int(nearest_int(inv[chosen] * x[i]), -nmax, nmax - 1));
    return scale;
}

/* One pass over the block: move each code to the best one for the others' scale, keep what improves. */
static bool q3_pass(int n, int nmax, const float *x, int8_t *codes, float *sum_xl, float *sum_l2)
{
    bool changed = false;
    for (int i = 0; i < n; i++) {
        float w = x[i] * x[i], slx = *sum_xl - w * x[i] * codes[i];
        if (!(slx > 0))
            continue;
        float sl2 = *sum_l2 - w * codes[i] * codes[i];
        int l = clamp_int(nearest_int(x[i] * sl2 / slx), -nmax, nmax - 1);
        if (l == codes[i])
            continue;
        slx += w * x[i] * (float)l;
        sl2 += w * (float)l * (float)l;
        if (sl2 > 0 && slx * slx * *sum_l2 > *sum_xl * *sum_xl * sl2) {
            codes[i] = (int8_t)l;
            *sum_xl = slx;
            *sum_l2 = sl2;
            changed = true;
        }
    }
    return changed;
}

float search_q3(int n, int nmax, const float *x, int8_t *codes)
{
    float amax, max = signed_max(n, x, &amax), sum_xl = 0, sum_l2 = 0;
    clear_codes(codes, n);
    if (amax < least_amax)
        return 0;
    float inv = (float)-nmax / max;
    for (int i = 0; i < n; i++) {
        int l = clamp_int(nearest_int(inv * x[i]), -nmax, nmax - 1);
        codes[i] = (int8_t)l;
        float w = x[i] * x[i];
        sum_xl += w * x[i] * (float)l;
        sum_l2 += w * (float)l * (float)l;
    }
    for (int pass = 0; pass < 5 && q3_pass(n, nmax, x, codes, &sum_xl, &sum_l2); pass++)
        ;
    for (int i = 0; i < n; i++)
        codes[i] = (int8_t)(codes[i] + nmax);
    return sum_l2 > 0 ? sum_xl / sum_l2 : 0;
}

void search_qkx(int n, int nmax, int count, const float *x, const float *w, const struct qkx_grid *g, uint8_t *codes,
                float *scales, float *minus_mins)
{
    float xt[SEARCH_MAX * SEARCH_WIDE] = { 0 }, wt[SEARCH_MAX * SEARCH_WIDE] = { 0 };
    float scale[SEARCH_WIDE], min[SEARCH_WIDE], inv[SEARCH_WIDE], base[SEARCH_WIDE];
    for (int c = 0; c < count; c++)
        for (int i = 0; i < n; i++) {
            xt[i * SEARCH_WIDE + c] = x[c * n + i];
            wt[i * SEARCH_WIDE + c] = w[c * n + i];
        }
    search_best()->qkx(n, nmax, xt, wt, g, scale, min, inv, base);
    for (int c = 0; c < count; c++) {
        const float *xc = x + c * n;
        float lo = 0, hi = xc[0];
        for (int i = 0; i < n; i++) {
            lo = xc[i] < lo ? xc[i] : lo;
            hi = xc[i] > hi ? xc[i] : hi;
        }
        bool flat = hi <= lo;       /* nothing above the min: all codes 0, no scale */
        scales[c] = flat ? 0 : scale[c];
        minus_mins[c] = flat ? -lo : -min[c];
        for (int i = 0; i < n; i++)
            codes[c * n + i] = (uint8_t)(flat ? 0 : clamp_int(nearest_int(inv[c] * (xc[i] - base[c])), 0, nmax));
    }
}

static float qp_error(int n, int nmax, const float *x, const float *w, float inv, bool clamp)
{
    float scale = 1 / inv, error = 0;
    for (int i = 0; i < n; i++) {
        int l = nearest_int(inv * x[i]);
        if (clamp && l > nmax)
            l = nmax;
        float e = x[i] - scale * (float)l;
        error += w[i] * e * e;
    }
    return error;
}

static bool qp_pass(int n, int nmax, const float *x, const float *w, uint8_t *codes, float *sum_xl, float *sum_l2)
{
    bool changed = false;
    for (int i = 0; i < n; i++) {
        float slx = *sum_xl - w[i] * x[i] * codes[i], sl2 = *sum_l2 - w[i] * codes[i] * codes[i];
        if (!(slx > 0 && sl2 > 0))
            continue;
        int l = nearest_int(x[i] * sl2 / slx);
        l = l > nmax ? nmax : l;
        if (l == codes[i])
            continue;
        slx += w[i] * x[i] * (float)l;
        sl2 += w[i] * (float)l * (float)l;
        if (slx * slx * *sum_l2 > *sum_xl * *sum_xl * sl2) {
            codes[i] = (uint8_t)l;
            *sum_xl = slx;
            *sum_l2 = sl2;
            changed = true;
        }
    }
    return changed;
}

float search_qp(int n, int nmax, const float *x, const float *w, uint8_t *codes)
{
    float max = 0;
    for (int i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    clear_codes(codes, n);
    if (max < least_amax)
        return 0;
    float inv = (float)nmax / max, best = qp_error(n, nmax, x, w, inv, false);
    for (int k = -4; k <= 4; k++) {
        float tried = (0.1f * (float)k + (float)nmax) / max;
        float error = k ? qp_error(n, nmax, x, w, tried, true) : best;
        if (error < best) {
            best = error;
            inv = tried;
        }
    }
    float sum_xl = 0, sum_l2 = 0;
    for (int i = 0; i < n; i++) {
        int l = nearest_int(inv * x[i]);
        codes[i] = (uint8_t)(l > nmax ? nmax : l);
        sum_xl += w[i] * x[i] * codes[i];
        sum_l2 += w[i] * codes[i] * codes[i];
    }
    for (int pass = 0; pass < 5 && qp_pass(n, nmax, x, w, codes, &sum_xl, &sum_l2); pass++)
        ;
    return sum_l2 > 0 ? sum_xl / sum_l2 : 0;
}

float search_iq4(const float *x, const float *w, int tries)
{
    enum { LANES = 16, n = 32 };
    float amax, max = signed_max(n, x, &amax);
    if (amax < least_amax)
        return 0;
    float inv[LANES] = { 0 }, sum_qx[LANES], sum_q2[LANES];
    float lowest = (float)iq4_nl_values[0];
    inv[0] = 1 / (tries > 0 ? -max / lowest : max / lowest);
    int n_inv = 1;
    for (int k = -tries; k <= tries; k++)
        inv[n_inv++] = ((float)k + lowest) / max;
    search_best()->iq4(n, x, w, LANES, inv, sum_qx, sum_q2);
    float scale = sum_q2[0] > 0 ? sum_qx[0] / sum_q2[0] : 0, best = scale * sum_qx[0];
    for (int c = 1; c < n_inv; c++)
        if (sum_q2[c] > 0 && sum_qx[c] * sum_qx[c] > best * sum_q2[c]) {
            scale = sum_qx[c] / sum_q2[c];
            best = scale * sum_qx[c];
        }
    return scale;
}
