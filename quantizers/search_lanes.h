/* search_lanes.h - body of a search kernel set; the including file defines SEARCH_SET, its name. */
#include "lanes.h"
#include "search.h"

static void lanes_qx(int n, int nmax, const float *x, const float *w, int lanes, const float *inv, float *sum_xl,
                     float *sum_l2)
{
    vf lo = vf_set((float)-nmax), hi = vf_set((float)(nmax - 1));
    for (int c = 0; c < lanes; c += VF_LANES) {
        vf is = vf_load(inv + c), xl = vf_set(0), l2 = vf_set(0);
        for (int i = 0; i < n; i++) {
            vf l = is * vf_set(x[i]);
            l = vf_max(lo, vf_min(hi, vf_rint(l)));
            vf wi = vf_set(w[i]);
            xl = xl + (wi * vf_set(x[i])) * l;
            l2 = l2 + (wi * l) * l;
        }
        vf_store(sum_xl + c, xl);
        vf_store(sum_l2 + c, l2);
    }
}

struct qkx_sums {
    vf l, l2, xl;
};

static inline vf qkx_codes(vf x, vf inv, vf base, vf limit)
{
    vf l = inv * (x - base);
    return vf_max(vf_set(0), vf_min(limit, vf_rint(l)));
}

static struct qkx_sums qkx_sum(int n, const float *x, const float *w, vf inv, vf base, vf limit)
{
    struct qkx_sums s = { vf_set(0), vf_set(0), vf_set(0) };
    for (int i = 0; i < n; i++) {
        vf xi = vf_load(x + i * SEARCH_WIDE), l = qkx_codes(xi, inv, base, limit), wl = vf_load(w + i * SEARCH_WIDE) * l;
        s.l = s.l + wl;
        s.l2 = s.l2 + wl * l;
        s.xl = s.xl + wl * xi;
    }
    return s;
}

static vf qkx_error(int n, const float *x, const float *w, vf inv, vf base, vf limit, vf scale, vf min, bool absolute)
{
    vf sum = vf_set(0);
    for (int i = 0; i < n; i++) {
        vf xi = vf_load(x + i * SEARCH_WIDE), e = (scale * qkx_codes(xi, inv, base, limit) + min) - xi, size = e * e;
        if (absolute)
            size = vf_abs(e);
        sum = sum + vf_load(w + i * SEARCH_WIDE) * size;
    }
    return sum;
}

/* One vector of blocks through the whole grid.  An improvement moves the min that later candidates start from. */
static void qkx_vector(int n, int nmax, const float *x, const float *w, const struct qkx_grid *g, float *scales,
                       float *mins, float *invs, float *bases)
{
    const vf zero = vf_set(0), limit = vf_set((float)nmax);
    vf min = vf_load(x), max = min, sum_w = vf_load(w), sum_x = sum_w * min;
    for (int i = 1; i < n; i++) {
        vf xi = vf_load(x + i * SEARCH_WIDE), wi = vf_load(w + i * SEARCH_WIDE);
        min = vf_min(xi, min);
        max = vf_max(xi, max);
        sum_w = sum_w + wi;
        sum_x = sum_x + wi * xi;
    }
    min = vf_min(min, zero);
    vf inv = limit / (max - min), scale = vf_set(1) / inv, best_inv = inv, base = min;
    vf best = qkx_error(n, x, w, inv, min, limit, scale, min, g->absolute);
    for (int s = 0; s <= g->steps; s++) {
        inv = vf_set(g->rmin + g->rdelta * (float)s + (float)nmax) / (max - min);
        struct qkx_sums t = qkx_sum(n, x, w, inv, min, limit);
        vf d = sum_w * t.l2 - t.l * t.l;
        vf try_scale = (sum_w * t.xl - sum_x * t.l) / d, try_min = (t.l2 * sum_x - t.l * t.xl) / d;
        try_scale = vf_if_less(zero, try_min, t.xl / t.l2, try_scale);
        try_min = vf_if_less(zero, try_min, zero, try_min);
        vf error = qkx_error(n, x, w, inv, min, limit, try_scale, try_min, g->absolute);
        error = vf_if_less(zero, d, error, best);       /* no solution: no better than before */
        scale = vf_if_less(error, best, try_scale, scale);
        best_inv = vf_if_less(error, best, inv, best_inv);
        base = vf_if_less(error, best, min, base);
        min = vf_if_less(error, best, try_min, min);
        best = vf_if_less(error, best, error, best);
    }
    vf_store(scales, scale);
    vf_store(mins, min);
    vf_store(invs, best_inv);
    vf_store(bases, base);
}

static void lanes_qkx(int n, int nmax, const float *x, const float *w, const struct qkx_grid *g, float *scales,
                      float *mins, float *invs, float *bases)
{
    for (int c = 0; c < SEARCH_WIDE; c += VF_LANES)
        qkx_vector(n, nmax, x + c, w + c, g, scales + c, mins + c, invs + c, bases + c);
}

/* Midpoints of the iq4 values and the step across each: the nearest value is the sum of steps passed. */
static const float iq4_edge[15] = { -115.5f, -93.5f, -74, -57, -42, -28.5f, -16, -4.5f, 7, 19, 31.5f, 45.5f, 61, 79, 101 };
static const float iq4_step[15] = { 23, 21, 18, 16, 14, 13, 12, 11, 12, 12, 13, 15, 16, 20, 24 };

static inline vf iq4_nearest(vf v)
{
    vf q = vf_set(-127);
    for (int t = 0; t < 15; t++)
        q = q + vf_if_less(v, vf_set(iq4_edge[t]), vf_set(0), vf_set(iq4_step[t]));
    return q;
}

static void lanes_iq4(int n, const float *x, const float *w, int lanes, const float *inv, float *sum_qx, float *sum_q2)
{
    for (int c = 0; c < lanes; c += VF_LANES) {
        vf is = vf_load(inv + c), qx = vf_set(0), q2 = vf_set(0);
        for (int i = 0; i < n; i++) {
            vf q = iq4_nearest(is * vf_set(x[i])), wq = vf_set(w[i]) * q;
            qx = qx + wq * vf_set(x[i]);
            q2 = q2 + wq * q;
        }
        vf_store(sum_qx + c, qx);
        vf_store(sum_q2 + c, q2);
    }
}

static void lanes_iq4_codes(const float *x, float inv, uint8_t *codes)
{
    float v[32];
    for (int j = 0; j < 32; j += VF_LANES) {
        vf s = vf_load(x + j) * vf_set(inv), n = vf_set(0);
        for (int t = 0; t < 15; t++)
            n = n + vf_if_less(s, vf_set(iq4_edge[t]), vf_set(0), vf_set(1));
        vf_store(v + j, n);
    }
    for (int j = 0; j < 32; j++)
        codes[j] = (uint8_t)(int)v[j];
}

const struct search_kernels SEARCH_SET = { lanes_qx, lanes_qkx, lanes_iq4, lanes_iq4_codes };
