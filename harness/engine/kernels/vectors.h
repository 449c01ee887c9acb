/* vectors.h - sums, element-wise functions and attention, written once in the operations of a lanes_*.h.
 * Each set includes its lanes, then this; VECTOR_OPS fills the set's table. */
#ifndef QDELTA_VECTORS_H
#define QDELTA_VECTORS_H

#include "functions.h"
#include "set.h"

/* One v16 a turn over n elements; BODY(load, store) is written for a full turn and for the tail. */
#define FOR_16(i, n) for (int i = 0; i < (n); i += 16)
static inline v16 load_up_to(const float *p, int left)
{
    return left >= 16 ? v_load(p) : v_load_n(p, left);
}

static inline void store_up_to(float *p, v16 a, int left)
{
    if (left >= 16)
        v_store(p, a);
    else
        v_store_n(p, a, left);
}

/* A float product's sum (kernels.h). */
static float dot_f32(const float *a, const float *b, int n)
{
    float y = 0;
    for (int k = 0; k < n; k += FLOAT_PART) {
        float acc = 0;
        for (int i = k; i < n && i < k + FLOAT_PART; i++)
            acc = fmaf(a[i], b[i], acc);
        y = k ? y + acc : acc;
    }
    return y;
}

/* sum x[k]^2: each square rounded, 32 lanes (k mod 32) in parts of 512 that are added lane by lane; then lanes l, l + 8, l + 16,
 * l + 24 in this order, then the eight in order. */
static float squares_f32(const float *x, int n)
{
    float lane[32];
    v16 low = v_set(0.0f), high = low;
    for (int k = 0; k < n; k += 512) {
        v16 a = v_set(0.0f), b = a;
        int end = n - k < 512 ? n : k + 512;
        for (int i = k; i < end; i += 32) {
            v16 p = load_up_to(x + i, end - i);
            a = v_add(a, v_mul(p, p));
            if (end - i <= 16)
                break;
            p = load_up_to(x + i + 16, end - i - 16);
            b = v_add(b, v_mul(p, p));
        }
        low = v_add(low, a);
        high = v_add(high, b);
    }
    v_store(lane, low);
    v_store(lane + 16, high);
    float sum = 0;
    for (int l = 0; l < 8; l++)
        sum += ((lane[l] + lane[l + 8]) + lane[l + 16]) + lane[l + 24];
    return sum;
}

static void scale_f32(float *y, float s, int n)
{
    FOR_16(i, n)
        store_up_to(y + i, v_mul(load_up_to(y + i, n - i), v_set(s)), n - i);
}

static void add_f32(float *y, const float *x, int n)
{
    FOR_16(i, n)
        store_up_to(y + i, v_add(load_up_to(y + i, n - i), load_up_to(x + i, n - i)), n - i);
}

/* y = (x * s) * w; w may be NULL. */
static void scale_by_f32(const float *x, float s, const float *w, float *y, int n)
{
    FOR_16(i, n) {
        v16 r = v_mul(load_up_to(x + i, n - i), v_set(s));
        if (w)
            r = v_mul(r, load_up_to(w + i, n - i));
        store_up_to(y + i, r, n - i);
    }
}

static void silu_mul_f32(const float *gate, const float *up, float *y, int n)
{
    FOR_16(i, n)
        store_up_to(y + i, v_mul(v_silu(load_up_to(gate + i, n - i)), load_up_to(up + i, n - i)), n - i);
}

static void gelu_mul_f32(const float *gate, const float *up, float *y, int n)
{
    FOR_16(i, n)
        store_up_to(y + i, v_mul(v_gelu(load_up_to(gate + i, n - i)), load_up_to(up + i, n - i)), n - i);
}

static inline v16 softcap16(v16 x, v16 cap)
{
    return v_mul(v_tanh(v_div(x, cap)), cap);
}

static void softcap_f32(float *y, float cap, int n)
{
    FOR_16(i, n)
        store_up_to(y + i, softcap16(load_up_to(y + i, n - i), v_set(cap)), n - i);
}

static void exp_f32(const float *x, float *y, int n)
{
    FOR_16(i, n)
        store_up_to(y + i, v_exp(load_up_to(x + i, n - i)), n - i);
}

static void tanh_f32(const float *x, float *y, int n)
{
    FOR_16(i, n)
        store_up_to(y + i, v_tanh(load_up_to(x + i, n - i)), n - i);
}

/* (a, b) -> (a cos - b sin, b cos + a sin), each product rounded, as the reference implementations do. */
static void rope_f32(float *x, const float *cos_t, const float *sin_t, int n)
{
    float *y = x + n / 2;
    FOR_16(i, n / 2) {
        int left = n / 2 - i;
        v16 a = load_up_to(x + i, left), b = load_up_to(y + i, left);
        v16 c = load_up_to(cos_t + i, left), s = load_up_to(sin_t + i, left);
        store_up_to(x + i, v_sub(v_mul(a, c), v_mul(b, s)), left);
        store_up_to(y + i, v_add(v_mul(b, c), v_mul(a, s)), left);
    }
}

static float max_f32(const float *x, int n)
{
    v16 m = v_set(x[0]);
    int i = 0;
    for (; i + 16 <= n; i += 16)
        m = v_max(v_load(x + i), m);
    float best = v_max_lane(m);
    for (; i < n; i++)
        best = x[i] > best ? x[i] : best;
    return best;
}

/* sum exp(x - max): float differences and exponentials, sixteen double lanes, the tree. */
static double sum_exp_f32(const float *x, float max, int n)
{
    double acc[16] = { 0 };
    int i = 0;
    for (; i + 16 <= n; i += 16)
        v_add_f64(acc, v_exp(v_sub(v_load(x + i), v_set(max))));
    if (i < n) {
        float e[16] = { 0 };
        v_store_n(e, v_exp(v_sub(v_load_n(x + i, n - i), v_set(max))), n - i);
        v_add_f64(acc, v_load(e));
    }
    for (int w = 8; w; w /= 2)
        for (int j = 0; j < w; j++)
            acc[j] += acc[j + w];
    return acc[0];
}

/* ---- attention ---- */

/* y = fma(p, x, y) */
static inline void axpy(float *y, float p, const float *x, int n)
{
    FOR_16(i, n)
        store_up_to(y + i, v_fma(v_set(p), load_up_to(x + i, n - i), load_up_to(y + i, n - i)), n - i);
}

struct softmax {
    float max, sum;
};

/* Scores of one tile -> weights p in place; the old sum and out are scaled to the new maximum.  Slots of the
 * tile that hold no position must be -infinity: they weigh 0. */
static void softmax_tile(struct softmax *st, float *s, float *out, int h)
{
    float m = v_max_lane(v_max(v_max(v_load(s), v_load(s + 16)), v_max(v_load(s + 32), v_load(s + 48))));
    if (m > st->max) {
        float c[16], d = st->max - m;
        v_store(c, v_exp(v_set(d)));
        st->sum *= c[0];
        scale_f32(out, c[0], h);
        st->max = m;
    }
    v16 sum = v_set(0.0f), max = v_set(st->max);
    for (int i = 0; i < ATTENTION_TILE; i += 16) {
        v16 p = v_exp(v_sub(v_load(s + i), max));
        v_store(s + i, p);
        sum = v_add(sum, p);
    }
    st->sum += v_sum(sum);
}

/* Part of a run inside [from, to). */
struct kv_part {
    const float *k, *v;
    size_t stride;
    int first, n;
};

static struct kv_part run_part(const struct kv_run *r, int from, int to)
{
    int a = r->first > from ? r->first : from, b = r->first + r->n < to ? r->first + r->n : to;
    if (a >= b)
        return (struct kv_part){ .first = from };
    size_t skip = (size_t)(a - r->first) * r->stride;
    return (struct kv_part){ r->k + skip, r->v + skip, r->stride, a, b - a };
}

static void attention_f32(const float *q, int h, const struct kv_run *runs, int n_runs, int from, int to,
                          float scale, float cap, float *out, float *scratch)
{
    struct softmax st = { -INFINITY, 0 };
    memset(out, 0, (size_t)h * sizeof *out);
    for (int t = from - from % ATTENTION_TILE; t < to; t += ATTENTION_TILE) {
        int a = t > from ? t : from, b = t + ATTENTION_TILE < to ? t + ATTENTION_TILE : to;
        for (int i = 0; i < ATTENTION_TILE; i++)
            scratch[i] = -INFINITY;
        for (int r = 0; r < n_runs; r++) {
            struct kv_part p = run_part(&runs[r], a, b);
            for (int j = 0; j < p.n; j++)
                scratch[p.first - t + j] = dot_f32(q, p.k + (size_t)j * p.stride, h) * scale;
        }
        if (cap > 0)
            softcap_f32(scratch + (a - t), cap, b - a);
        softmax_tile(&st, scratch, out, h);
        for (int r = 0; r < n_runs; r++) {
            struct kv_part p = run_part(&runs[r], a, b);
            for (int j = 0; j < p.n; j++)
                axpy(out, scratch[p.first - t + j], p.v + (size_t)j * p.stride, h);
        }
    }
    float inv = st.sum;
    FOR_16(i, h)
        store_up_to(out + i, v_div(load_up_to(out + i, h - i), v_set(inv)), h - i);
}

#include "attention.h"

#define VECTOR_OPS                                                                                         \
    .vec = { squares_f32, scale_f32, add_f32, scale_by_f32, silu_mul_f32, gelu_mul_f32, softcap_f32, exp_f32, \
             tanh_f32, rope_f32, max_f32, sum_exp_f32, attention_f32, attention_tiles_f32 }

#endif
