/* solve_lanes.h - body of a kernel set of solve.h; the including file defines SOLVE_SET and its LINEAR_SET. */
#include <string.h>

#include "lanes.h"
#include "solve.h"

enum { SWEEP_BLOCK = 128 };

static const float solve_iq4_edge[15] = { -115.5f, -93.5f, -74, -57, -42, -28.5f, -16, -4.5f, 7, 19, 31.5f, 45.5f, 61, 79, 101 };
static const float solve_iq4_step[15] = { 23, 21, 18, 16, 14, 13, 12, 11, 12, 12, 13, 15, 16, 20, 24 };

/* Nearest code to w, and what it stands for. */
static inline vf nearest_code(const struct grid *g, vf w, vf s, vf inv, vf m, vf *value)
{
    vf x = (w - m) * inv, c = vf_set(0);
    if (!g->codebook) {
        x = vf_max(vf_set((float)g->lo), vf_min(vf_set((float)g->hi), x));
        c = vf_rint(x);
        *value = s * c + m;
        return c;
    }
    vf v = vf_set(-127);
    for (int t = 0; t < 15; t++) {
        c = c + vf_if_less(x, vf_set(solve_iq4_edge[t]), vf_set(0), vf_set(1));
        v = v + vf_if_less(x, vf_set(solve_iq4_edge[t]), vf_set(0), vf_set(solve_iq4_step[t]));
    }
    *value = s * v;
    return c;
}

/* w += sum over k < n of e[k] t[k * STRIP], WIDE lanes. */
static void gather(int n, const float *t, const float *e, float *w)
{
    enum { VECS = WIDE / VF_LANES >= 4 ? 4 : 1 };
    for (int v = 0; v < WIDE; v += VECS * VF_LANES) {
        vf sum[VECS];
        UNROLL
        for (int i = 0; i < VECS; i++)
            sum[i] = vf_load(w + v + i * VF_LANES);
        for (int k = 0; k < n; k++)
            UNROLL
            for (int i = 0; i < VECS; i++)
                sum[i] = vf_fma(vf_set(t[k * STRIP]), vf_load(e + k * WIDE + v + i * VF_LANES), sum[i]);
        UNROLL
        for (int i = 0; i < VECS; i++)
            vf_store(w + v + i * VF_LANES, sum[i]);
    }
}

/* Round sweep position k; e: what its weights are off in the end. */
static void round_column(const struct sweep *p, int k, float *e)
{
    int column = p->order[k], at = column / BLOCK * WIDE;
    for (int v = 0; v < WIDE; v += VF_LANES) {
        vf w = vf_load(p->w + (size_t)k * WIDE + v), q;
        vf c = nearest_code(p->grid, w, vf_load(p->s + at + v), vf_load(p->inv + at + v), vf_load(p->m + at + v), &q);
        vf_store(p->codes + (size_t)column * WIDE + v, c);
        vf_store(e + v, vf_load(p->original + (size_t)column * WIDE + v) - q);
        vf_store(p->w + (size_t)k * WIDE + v, w - q);           /* used up: now the step */
    }
    for (int v = 0; v < WIDE; v++) {
        double step = (double)p->w[(size_t)k * WIDE + (size_t)v];
        p->loss[v] += step * step * p->d[k];
    }
}

/* Round column by column; the error of each goes to the columns that come after it: at once within DEPTH columns, by
 * the DEPTH within SWEEP_BLOCK, and by the SWEEP_BLOCK to the rest. */
static void lanes_sweep(const struct sweep *p)
{
    float e[SWEEP_BLOCK * WIDE];
    size_t step = (size_t)p->n * DEPTH;
    for (int from = 0; from < p->n; from += SWEEP_BLOCK) {
        int to = from + SWEEP_BLOCK < p->n ? from + SWEEP_BLOCK : p->n;
        for (int near = from; near < to; near += DEPTH) {
            float *en = e + (near - from) * WIDE;
            for (int k = near; k < near + DEPTH; k++) {
                gather(k - near, p->t + tiled_at(p->n, near, k), en, p->w + (size_t)k * WIDE);
                round_column(p, k, en + (k - near) * WIDE);
            }
            SOLVE_LINEAR.update((to - near - DEPTH) / STRIP, 1, p->t + tiled_at(p->n, near, near + DEPTH), step, en,
                                p->w + (size_t)(near + DEPTH) * WIDE);
        }
        SOLVE_LINEAR.update((p->n - to) / STRIP, (to - from) / DEPTH, p->t + tiled_at(p->n, from, to), step, e,
                            p->w + (size_t)to * WIDE);
    }
}

/* What codes stand for on a grid without mins. */
static inline vf code_value(const struct grid *g, vf codes, vf s)
{
    float c[VF_LANES];
    if (!g->codebook)
        return s * codes;
    vf_store(c, codes);
    for (int v = 0; v < VF_LANES; v++)
        c[v] = (float)iq4_nl_values[(int)c[v]];
    return s * vf_load(c);
}

static void set_values(const struct descent *p)
{
    for (int i = 0; i < p->n; i++)
        for (int v = 0; v < WIDE; v++) {
            size_t at = (size_t)i * WIDE + (size_t)v, block = (size_t)(i / BLOCK) * WIDE + (size_t)v;
            float c = p->grid->codebook ? (float)iq4_nl_values[(int)p->codes[at]] : p->codes[at];
            p->value[at] = p->s[block] * c + (p->grid->codebook ? 0 : p->m[block]);
        }
}

/* gradient += H[:, block] change, outside the block (inside it is kept up to date). */
static void spread(const struct descent *p, int from, const float *change)
{
    int to = from + BLOCK;
    const float *h = p->h + tiled_at(p->n, from, 0);    /* symmetric: rows for columns */
    SOLVE_LINEAR.update(from / STRIP, 1, h, 0, change, p->gradient);
    SOLVE_LINEAR.update((p->n - to) / STRIP, 1, h + (size_t)to * DEPTH, 0, change, p->gradient + (size_t)to * WIDE);
}

/* One pass over the codes of a block: move a code where that lowers the error. */
static bool descend_block(struct descent *p, int from, float *change)
{
    const float *h = p->h + tiled_at(p->n, from, from);
    int at = from / BLOCK * WIDE;
    bool any = false;
    for (int i = from; i < from + BLOCK; i++) {
        const float *hi = h + (i - from) * STRIP;               /* H[i][from + j] = hi[j / STRIP * BLOCK * STRIP + j % STRIP] */
        float delta[WIDE], moved[VF_LANES];
        vf most = vf_set(0);
        for (int v = 0; v < WIDE; v += VF_LANES) {
            size_t k = (size_t)i * WIDE + (size_t)v;
            vf value = vf_load(p->value + k), g = vf_load(p->gradient + k), hii = vf_set(h[tiled_at(BLOCK, i - from, i - from)]), q;
            vf c = nearest_code(p->grid, value - g / hii, vf_load(p->s + at + v), vf_load(p->inv + at + v), vf_load(p->m + at + v), &q);
            vf d = q - value, gain = d * (vf_set(2) * g + d * hii), zero = vf_set(0);
            d = vf_if_less(gain, zero, d, zero);
            vf_store(p->codes + k, vf_if_less(gain, zero, c, vf_load(p->codes + k)));
            vf_store(p->value + k, vf_if_less(gain, zero, q, value));
            vf_store(change + (size_t)(i - from) * WIDE + (size_t)v, vf_load(change + (size_t)(i - from) * WIDE + (size_t)v) + d);
            vf_store(delta + v, d);
            most = vf_max(most, vf_abs(d));
        }
        vf_store(moved, most);
        bool some = false;
        for (int v = 0; v < VF_LANES; v++)
            some |= moved[v] > 0;
        if (!some)
            continue;
        any = true;
        for (int j = 0; j < BLOCK; j++)
            for (int v = 0; v < WIDE; v += VF_LANES) {
                float *g = p->gradient + (size_t)(from + j) * WIDE + (size_t)v;
                vf_store(g, vf_fma(vf_load(delta + v), vf_set(hi[j / STRIP * BLOCK * STRIP + j % STRIP]), vf_load(g)));
            }
    }
    return any;
}

/* The best scale for the codes as they are now, rounded to fp16; kept in the lanes where it helps. */
static bool refit_block(struct descent *p, int from, float *change)
{
    float num[WIDE], den[WIDE], step[WIDE], hc[BLOCK * WIDE] = { 0 }, unit[BLOCK * WIDE];
    float *s = p->s + from / BLOCK * WIDE, *inv = p->inv + from / BLOCK * WIDE;
    bool any = false;
    for (int i = 0; i < BLOCK; i++)
        for (int v = 0; v < WIDE; v += VF_LANES) {              /* m is 0 on the grids that refit */
            vf scale = vf_load(s + v), x = vf_load(p->value + (size_t)(from + i) * WIDE + v) / scale;
            vf_store(unit + i * WIDE + v, vf_if_less(vf_set(0), vf_abs(scale), x, vf_set(0)));
        }
    SOLVE_LINEAR.update(BLOCK / STRIP, 1, p->h + tiled_at(p->n, from, from), 0, unit, hc);
    for (int v = 0; v < WIDE; v += VF_LANES) {
        vf a = vf_set(0), b = vf_set(0);
        for (int i = 0; i < BLOCK; i++) {
            vf u = vf_load(unit + i * WIDE + v);
            a = vf_fma(u, vf_load(p->gradient + (size_t)(from + i) * WIDE + v), a);
            b = vf_fma(u, vf_load(hc + i * WIDE + v), b);
        }
        vf_store(num + v, a);
        vf_store(den + v, b);
    }
    for (int v = 0; v < WIDE; v++) {
        float d = den[v] > 0 ? fp16_scale(s[v] - num[v] / den[v]) : s[v];
        step[v] = d - s[v];
        if (!(step[v] * (2 * num[v] + step[v] * den[v]) < 0) || d == 0)
            step[v] = 0;
        else
            s[v] = d;
        inv[v] = s[v] != 0 ? 1 / s[v] : 0;
        any |= step[v] != 0;
    }
    for (int i = 0; any && i < BLOCK; i++)
        for (int v = 0; v < WIDE; v += VF_LANES) {              /* in the lanes that stay, the step is 0 */
            size_t at = (size_t)(from + i) * WIDE + (size_t)v;
            vf d = vf_load(step + v), u = vf_load(unit + i * WIDE + v), none = vf_set(0);
            vf_store(change + i * WIDE + v, vf_fma(d, u, vf_load(change + i * WIDE + v)));
            vf_store(p->value + at, vf_if_less(none, vf_abs(d), vf_load(s + v) * u, vf_load(p->value + at)));
            vf_store(p->gradient + at, vf_fma(d, vf_load(hc + i * WIDE + v), vf_load(p->gradient + at)));
        }
    return any;
}

/* ---- a block anew: scale and codes together, the rest of the row as it is ---- */

/* H of BLOCK columns (tiled) = T diag(d) T', T unit upper triangular, t[k][j] for k < j.  False: not positive definite. */
static bool block_factor(const float *h, float (*t)[BLOCK], float *d)
{
    double a[BLOCK][BLOCK];
    for (int i = 0; i < BLOCK; i++)
        for (int j = 0; j < BLOCK; j++)
            a[j][i] = (double)h[tiled_at(BLOCK, i, j)];
    for (int k = BLOCK - 1; k >= 0; k--) {                      /* a[k][i]: column k of what is left */
        if (!(a[k][k] > 0))
            return false;
        d[k] = (float)a[k][k];
        for (int i = 0; i < k; i++) {
            double factor = a[k][i] / a[k][k];
            t[i][k] = (float)factor;
            for (int j = 0; j <= i; j++)
                a[i][j] -= factor * a[k][j];
        }
    }
    return true;
}

/* x = (T diag(d) T')^-1 g */
static void block_divide(float (*t)[BLOCK], const float *d, const vf *g, vf *x)
{
    for (int i = 0; i < BLOCK; i++)
        x[i] = g[i];
    for (int k = BLOCK - 1; k > 0; k--)
        for (int i = 0; i < k; i++)
            x[i] = vf_fma(vf_set(-t[i][k]), x[k], x[i]);
    for (int k = 0; k < BLOCK; k++)
        x[k] = x[k] / vf_set(d[k]);
    for (int k = 0; k < BLOCK; k++)
        for (int i = k + 1; i < BLOCK; i++)
            x[i] = vf_fma(vf_set(-t[k][i]), x[k], x[i]);
}

/* Nearest plane within the block: codes for scale s, and their e' H e from the target. */
static vf block_round(const struct grid *g, float (*t)[BLOCK], const float *d, const vf *target, vf s, vf inv, vf *codes)
{
    vf x[BLOCK], loss = vf_set(0);
    for (int i = 0; i < BLOCK; i++)
        x[i] = target[i];
    for (int k = 0; k < BLOCK; k++) {
        vf q, step, e;
        codes[k] = nearest_code(g, x[k], s, inv, vf_set(0), &q);
        step = x[k] - q;
        e = target[k] - q;
        loss = vf_fma(step * step, vf_set(d[k]), loss);
        for (int j = k + 1; j < BLOCK; j++)
            x[j] = vf_fma(vf_set(t[k][j]), e, x[j]);
    }
    return loss;
}

/* Scales to try: the largest weight on 3/4 to 9/8 of the grid's largest code, in fp16, and their inverses. */
enum { TRIED = 16 };
static void block_scales(const struct grid *g, const float *largest, float (*s)[VF_LANES], float (*inv)[VF_LANES])
{
    float top = g->codebook ? 127 : (float)-g->lo;
    for (int k = 0; k < TRIED; k++)
        for (int v = 0; v < VF_LANES; v++) {
            s[k][v] = fp16_scale(largest[v] / (top * (0.75f + 0.025f * (float)k)));
            inv[k][v] = s[k][v] != 0 ? 1 / s[k][v] : 0;
        }
}

/* VF_LANES rows: the best of TRIED scales of either sign, kept where it beats what is there. */
static bool search_lanes(struct descent *p, int from, int v, float (*t)[BLOCK], const float *d, float *delta)
{
    vf g[BLOCK], target[BLOCK], codes[BLOCK], best[BLOCK], loss = vf_set(0), most = vf_set(0), zero = vf_set(0);
    float largest[VF_LANES], s[TRIED][VF_LANES], inv[TRIED][VF_LANES], gained[VF_LANES];
    size_t at = (size_t)(from / BLOCK) * WIDE + (size_t)v, first = (size_t)from * WIDE + (size_t)v;
    for (int i = 0; i < BLOCK; i++)
        g[i] = vf_load(p->gradient + first + (size_t)i * WIDE);
    block_divide(t, d, g, target);
    for (int i = 0; i < BLOCK; i++) {           /* g = H e, e the distance from the target */
        loss = vf_fma(target[i], g[i], loss);
        target[i] = vf_load(p->value + first + (size_t)i * WIDE) - target[i];
        best[i] = vf_load(p->codes + first + (size_t)i * WIDE);
        most = vf_max(most, vf_abs(target[i]));
    }
    vf_store(largest, most);
    block_scales(p->grid, largest, s, inv);
    vf before = loss, scale = vf_load(p->s + at), inverse = vf_load(p->inv + at);
    for (int k = 0; k < 2 * TRIED; k++) {
        vf sign = vf_set(k < TRIED ? 1 : -1), sk = vf_load(s[k % TRIED]) * sign, ik = vf_load(inv[k % TRIED]) * sign;
        vf now = block_round(p->grid, t, d, target, sk, ik, codes);
        for (int i = 0; i < BLOCK; i++)
            best[i] = vf_if_less(now, loss, codes[i], best[i]);
        scale = vf_if_less(now, loss, sk, scale);
        inverse = vf_if_less(now, loss, ik, inverse);
        loss = vf_if_less(now, loss, now, loss);
    }
    vf_store(gained, vf_if_less(loss, before, vf_set(1), zero));
    vf_store(p->s + at, scale);
    vf_store(p->inv + at, inverse);
    bool any = false;
    for (int l = 0; l < VF_LANES; l++)
        any |= gained[l] > 0;
    for (int i = 0; i < BLOCK; i++) {
        size_t k = first + (size_t)i * WIDE;
        vf old = vf_load(p->value + k), value = vf_if_less(zero, vf_load(gained), code_value(p->grid, best[i], scale), old);
        vf_store(p->codes + k, best[i]);
        vf_store(p->value + k, value);
        vf_store(delta + i * WIDE + v, value - old);
    }
    return any;
}

static bool search_block(struct descent *p, int from, float *change)
{
    const float *h = p->h + tiled_at(p->n, from, from);
    float t[BLOCK][BLOCK], d[BLOCK];
    bool any = false;
    if (!block_factor(h, t, d))
        return false;
    for (int v = 0; v < WIDE; v += VF_LANES)
        any |= search_lanes(p, from, v, t, d, change);
    if (any)
        SOLVE_LINEAR.update(BLOCK / STRIP, 1, h, 0, change, p->gradient + (size_t)from * WIDE);
    return any;
}

static bool move_block(struct descent *p, int from, float *change)
{
    bool moved = descend_block(p, from, change);
    return (p->grid->refit && refit_block(p, from, change)) || moved;
}

/* Every block once; what a block changed is in the gradient before the next is looked at. */
static bool pass_blocks(struct descent *p, bool (*visit)(struct descent *p, int from, float *change))
{
    float change[BLOCK * WIDE];
    bool any = false;
    for (int from = 0; from < p->n; from += BLOCK) {
        memset(change, 0, sizeof change);
        bool moved = visit(p, from, change);
        if (moved)
            spread(p, from, change);
        any |= moved;
        p->changes += moved;
    }
    return any;
}

static void lanes_descend(struct descent *p)
{
    set_values(p);
    memset(p->gradient, 0, (size_t)p->n * WIDE * sizeof *p->gradient);
    float change[SWEEP_BLOCK * WIDE];
    for (int from = 0; from < p->n; from += SWEEP_BLOCK) {
        int rows = p->n - from < SWEEP_BLOCK ? p->n - from : SWEEP_BLOCK;
        for (int i = 0; i < rows * WIDE; i++)
            change[i] = p->value[(size_t)from * WIDE + (size_t)i] - p->w[(size_t)from * WIDE + (size_t)i];
        SOLVE_LINEAR.update(p->n / STRIP, rows / DEPTH, p->h + tiled_at(p->n, from, 0), (size_t)p->n * DEPTH, change, p->gradient);
    }
    for (int pass = 0; pass < p->passes && pass_blocks(p, move_block); pass++)
        ;
    for (int round = 0; p->grid->refit && round < p->searches && pass_blocks(p, search_block); round++)
        pass_blocks(p, move_block);
}

const struct solve_kernels SOLVE_SET = { lanes_sweep, lanes_descend };
