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

static void set_values(const struct descent *p)
{
    static const float iq4[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
    for (int i = 0; i < p->n; i++)
        for (int v = 0; v < WIDE; v++) {
            size_t at = (size_t)i * WIDE + (size_t)v, block = (size_t)(i / BLOCK) * WIDE + (size_t)v;
            float c = p->grid->codebook ? iq4[(int)p->codes[at]] : p->codes[at];
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
        float d = den[v] > 0 ? f16_to_f32(f32_to_f16(s[v] - num[v] / den[v])) : s[v];
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
    float moves[BLOCK * WIDE];
    for (int pass = 0; pass < p->passes; pass++) {
        bool any = false;
        for (int from = 0; from < p->n; from += BLOCK) {
            memset(moves, 0, sizeof moves);
            bool moved = descend_block(p, from, moves);
            if (p->grid->refit)
                moved |= refit_block(p, from, moves);
            if (moved)
                spread(p, from, moves);
            any |= moved;
            p->changes += moved;
        }
        if (!any)
            break;
    }
}

const struct solve_kernels SOLVE_SET = { lanes_sweep, lanes_descend };
