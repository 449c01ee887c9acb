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

/* Round column by column; the error of each goes to the columns that come after it. */
static void lanes_sweep(const struct sweep *p)
{
    float e[SWEEP_BLOCK * WIDE];
    const struct linear_kernels *lin = &SOLVE_LINEAR;
    for (int from = 0; from < p->n; from += SWEEP_BLOCK) {
        int to = from + SWEEP_BLOCK < p->n ? from + SWEEP_BLOCK : p->n;
        for (int k = from; k < to; k++) {
            int column = p->order[k], at = column / BLOCK * WIDE;
            float *ek = e + (k - from) * WIDE, step[WIDE];
            /* errors of this block's earlier columns arrive now, those of earlier blocks have arrived */
            lin->update(1, k - from, p->t + (size_t)from * p->ld + (size_t)k, p->ld, e, p->w + (size_t)k * WIDE);
            for (int v = 0; v < WIDE; v += VF_LANES) {
                vf w = vf_load(p->w + (size_t)k * WIDE + v), q;
                vf c = nearest_code(p->grid, w, vf_load(p->s + at + v), vf_load(p->inv + at + v), vf_load(p->m + at + v), &q);
                vf_store(p->codes + (size_t)column * WIDE + v, c);
                vf_store(ek + v, vf_load(p->original + (size_t)column * WIDE + v) - q);
                vf_store(step + v, w - q);
            }
            for (int v = 0; v < WIDE; v++)
                p->loss[v] += (double)step[v] * (double)step[v] * p->d[k];
        }
        lin->update(p->n - to, to - from, p->t + (size_t)from * p->ld + (size_t)to, p->ld, e, p->w + (size_t)to * WIDE);
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
    int to = from + BLOCK < p->n ? from + BLOCK : p->n;
    const float *h = p->h + (size_t)from * p->ld;       /* symmetric: rows read along */
    SOLVE_LINEAR.update(from, to - from, h, p->ld, change, p->gradient);
    SOLVE_LINEAR.update(p->n - to, to - from, h + to, p->ld, change, p->gradient + (size_t)to * WIDE);
}

/* One pass over the codes of a block: move a code where that lowers the error. */
static bool descend_block(struct descent *p, int from, float *change)
{
    int to = from + BLOCK < p->n ? from + BLOCK : p->n, at = from / BLOCK * WIDE;
    bool any = false;
    for (int i = from; i < to; i++) {
        const float *hi = p->h + (size_t)i * p->ld;
        float delta[WIDE], moved = 0;
        for (int v = 0; v < WIDE; v += VF_LANES) {
            size_t k = (size_t)i * WIDE + (size_t)v;
            vf value = vf_load(p->value + k), g = vf_load(p->gradient + k), hii = vf_set(hi[i]), q;
            vf c = nearest_code(p->grid, value - g / hii, vf_load(p->s + at + v), vf_load(p->inv + at + v), vf_load(p->m + at + v), &q);
            vf d = q - value, gain = d * (vf_set(2) * g + d * hii), zero = vf_set(0);
            d = vf_if_less(gain, zero, d, zero);
            vf_store(p->codes + k, vf_if_less(gain, zero, c, vf_load(p->codes + k)));
            vf_store(p->value + k, vf_if_less(gain, zero, q, value));
            vf_store(change + (size_t)(i - from) * WIDE + (size_t)v, vf_load(change + (size_t)(i - from) * WIDE + (size_t)v) + d);
            vf_store(delta + v, d);
        }
        for (int v = 0; v < WIDE; v++)
            moved += delta[v] < 0 ? -delta[v] : delta[v];
        if (!(moved > 0))
            continue;
        any = true;
        for (int j = from; j < to; j++)
            for (int v = 0; v < WIDE; v += VF_LANES) {
                float *g = p->gradient + (size_t)j * WIDE + (size_t)v;
                vf_store(g, vf_load(g) + vf_load(delta + v) * vf_set(hi[j]));
            }
    }
    return any;
}

/* The best scale for the codes as they are now, rounded to fp16; kept in the lanes where it helps. */
static bool refit_block(struct descent *p, int from, float *change)
{
    float num[WIDE] = { 0 }, den[WIDE] = { 0 }, step[WIDE], hc[BLOCK * WIDE] = { 0 };
    float *s = p->s + from / BLOCK * WIDE, *inv = p->inv + from / BLOCK * WIDE;
    float unit[BLOCK * WIDE];
    bool any = false;
    for (int i = 0; i < BLOCK; i++)
        for (int v = 0; v < WIDE; v++) {
            size_t at = (size_t)(from + i) * WIDE + (size_t)v;
            unit[i * WIDE + v] = s[v] != 0 ? p->value[at] / s[v] : 0;       /* m is 0 on the grids that refit */
        }
    SOLVE_LINEAR.update(BLOCK, BLOCK, p->h + (size_t)from * p->ld + (size_t)from, p->ld, unit, hc);
    for (int i = 0; i < BLOCK; i++)
        for (int v = 0; v < WIDE; v++) {
            num[v] += unit[i * WIDE + v] * p->gradient[(size_t)(from + i) * WIDE + (size_t)v];
            den[v] += unit[i * WIDE + v] * hc[i * WIDE + v];
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
        for (int v = 0; v < WIDE; v++) {
            size_t at = (size_t)(from + i) * WIDE + (size_t)v;
            if (step[v] == 0)
                continue;
            change[i * WIDE + v] += step[v] * unit[i * WIDE + v];
            p->value[at] = s[v] * unit[i * WIDE + v];
            p->gradient[at] += step[v] * hc[i * WIDE + v];
        }
    return any;
}

static void lanes_descend(struct descent *p)
{
    set_values(p);
    memset(p->gradient, 0, (size_t)p->n * WIDE * sizeof *p->gradient);
    float change[BLOCK * WIDE];
    for (int from = 0; from < p->n; from += BLOCK) {
        int rows = p->n - from < BLOCK ? p->n - from : BLOCK;
        for (int i = 0; i < rows * WIDE; i++)
            change[i] = p->value[(size_t)from * WIDE + (size_t)i] - p->w[(size_t)from * WIDE + (size_t)i];
        SOLVE_LINEAR.update(p->n, rows, p->h + (size_t)from * p->ld, p->ld, change, p->gradient);
    }
    for (int pass = 0; pass < p->passes; pass++) {
        bool any = false;
        for (int from = 0; from < p->n; from += BLOCK) {
            memset(change, 0, sizeof change);
            bool moved = descend_block(p, from, change);
            if (p->grid->refit && from + BLOCK <= p->n)
                moved |= refit_block(p, from, change);
            if (moved)
                spread(p, from, change);
            any |= moved;
            p->changes += moved;
        }
        if (!any)
            break;
    }
}

const struct solve_kernels SOLVE_SET = { lanes_sweep, lanes_descend };
