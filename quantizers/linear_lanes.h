/* linear_lanes.h - body of a kernel set of linear.h; the including file defines LINEAR_SET, its name. */
#include "lanes.h"
#include "linear.h"

enum {
    ROWS_F = VF_LANES >= 8 ? 4 : 2, VECS_F = VF_LANES >= 16 ? 4 : 2,    /* register tile of syrk and update */
    ROWS_D = 4, VECS_D = VD_LANES >= 8 ? 4 : 2,
    NEAR = 128,                 /* tokens whose panel stays in the first cache */
};
_Static_assert(STRIP % ROWS_F == 0 && WIDE % (VECS_F * VF_LANES) == 0, "whole register tiles");

/* sum[r][v] += sum over k < n of a[k * step_a + r] b[k * step_b + v * lanes]. */
static inline void multiply_tile(int n, const float *a, size_t step_a, const float *b, size_t step_b, float *sum, size_t ld)
{
    vf s[ROWS_F][VECS_F];
    UNROLL
    for (int r = 0; r < ROWS_F; r++)
        UNROLL
        for (int v = 0; v < VECS_F; v++)
            s[r][v] = vf_load(sum + (size_t)r * ld + v * VF_LANES);
    for (int k = 0; k < n; k++, a += step_a, b += step_b)
        UNROLL
        for (int r = 0; r < ROWS_F; r++) {
            vf x = vf_set(a[r]);
            UNROLL
            for (int v = 0; v < VECS_F; v++)
                s[r][v] = vf_fma(x, vf_load(b + v * VF_LANES), s[r][v]);
        }
    UNROLL
    for (int r = 0; r < ROWS_F; r++)
        UNROLL
        for (int v = 0; v < VECS_F; v++)
            vf_store(sum + (size_t)r * ld + v * VF_LANES, s[r][v]);
}

static void multiply_chunk(int n, const float *a, const float *b, float *sum)
{
    for (int from = 0; from < n; from += NEAR, a += NEAR * PANEL, b += NEAR * PANEL)
        for (int i = 0; i < PANEL; i += ROWS_F)
            for (int j = 0; j < PANEL; j += VECS_F * VF_LANES)
                multiply_tile(n - from < NEAR ? n - from : NEAR, a + i, PANEL, b + j, PANEL, sum + i * PANEL + j, PANEL);
}

static void lanes_syrk(int n, const float *a, const float *b, double *h, size_t ld)
{
    double total[PANEL * PANEL] = { 0 };
    for (int from = 0; from < n; from += CHUNK) {
        float sum[PANEL * PANEL] = { 0 };
        multiply_chunk(n - from < CHUNK ? n - from : CHUNK, a + from * PANEL, b + from * PANEL, sum);
        for (int k = 0; k < PANEL * PANEL; k += VD_LANES)
            vd_store(total + k, vd_load(total + k) + vd_widen(sum + k));
    }
    for (int r = 0; r < PANEL; r++, h += ld)
        for (int c = 0; c < PANEL; c += VD_LANES)
            vd_store(h + c, vd_load(h + c) + vd_load(total + r * PANEL + c));
}

static void lanes_downdate(int n, const double *a, const double *b, double *c, size_t ld)
{
    for (int i = 0; i < PANEL; i += ROWS_D)
        for (int j = 0; j < PANEL; j += VECS_D * VD_LANES) {
            vd sum[ROWS_D][VECS_D];
            UNROLL
            for (int r = 0; r < ROWS_D; r++)
                UNROLL
                for (int v = 0; v < VECS_D; v++)
                    sum[r][v] = vd_set(0);
            for (int k = 0; k < n; k++)
                UNROLL
                for (int r = 0; r < ROWS_D; r++) {
                    vd x = vd_set(a[k * PANEL + i + r]);
                    UNROLL
                    for (int v = 0; v < VECS_D; v++)
                        sum[r][v] = vd_fma(x, vd_load(b + k * PANEL + j + v * VD_LANES), sum[r][v]);
                }
            UNROLL
            for (int r = 0; r < ROWS_D; r++)
                UNROLL
                for (int v = 0; v < VECS_D; v++) {
                    double *at = c + (size_t)(i + r) * ld + (size_t)(j + v * VD_LANES);
                    vd_store(at, vd_load(at) - sum[r][v]);
                }
        }
}

static void lanes_update(int strips, int blocks, const float *t, size_t step, const float *e, float *w)
{
    for (int s = 0; s < strips; s++, t += STRIP * DEPTH, w += STRIP * WIDE)
        for (int r = 0; r < STRIP; r += ROWS_F)
            for (int v = 0; v < WIDE; v += VECS_F * VF_LANES)
                for (int k = 0; k < blocks; k++)
                    multiply_tile(DEPTH, t + (size_t)k * step + r, STRIP, e + k * DEPTH * WIDE + v, WIDE, w + r * WIDE + v, WIDE);
}

const struct linear_kernels LINEAR_SET = { lanes_syrk, lanes_downdate, lanes_update };
