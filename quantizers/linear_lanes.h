/* linear_lanes.h - body of a kernel set of linear.h; the including file defines LINEAR_SET, its name. */
#include "lanes.h"
#include "linear.h"

enum {
    ROWS_F = 4, VECS_F = VF_LANES >= 16 ? 4 : VF_LANES >= 8 ? 2 : VF_LANES >= 4 ? 2 : 4,     /* register tile of syrk */
    ROWS_D = 4, VECS_D = VD_LANES >= 8 ? 4 : 2,
    PER_ROW = WIDE / VF_LANES,                                  /* vectors of WIDE lanes */
    TILE = VF_LANES >= 16 ? 8 : VF_LANES >= 8 ? 4 : 2,          /* rows of t at once */
};

static void lanes_syrk(int n, const float *a, const float *b, double *h, size_t ld)
{
    for (int i = 0; i < PANEL; i += ROWS_F)
        for (int j = 0; j < PANEL; j += VECS_F * VF_LANES) {
            vf sum[ROWS_F][VECS_F];
            UNROLL
            for (int r = 0; r < ROWS_F; r++)
                UNROLL
                for (int v = 0; v < VECS_F; v++)
                    sum[r][v] = vf_set(0);
            for (int t = 0; t < n; t++)
                UNROLL
                for (int r = 0; r < ROWS_F; r++) {
                    vf x = vf_set(a[t * PANEL + i + r]);
                    UNROLL
                    for (int v = 0; v < VECS_F; v++)
                        sum[r][v] = sum[r][v] + x * vf_load(b + t * PANEL + j + v * VF_LANES);
                }
            UNROLL
            for (int r = 0; r < ROWS_F; r++)
                UNROLL
                for (int v = 0; v < VECS_F; v++) {
                    float s[VF_LANES];
                    vf_store(s, sum[r][v]);
                    for (int k = 0; k < VF_LANES; k++)
                        h[(size_t)(i + r) * ld + (size_t)(j + v * VF_LANES + k)] += (double)s[k];
                }
        }
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
                        sum[r][v] = sum[r][v] + x * vd_load(b + k * PANEL + j + v * VD_LANES);
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

/* Rows of w that share their loads of e; t is read along its rows. */
static void update_tile(int n, const float *t, size_t ld, const float *e, float *w)
{
    vf sum[TILE * PER_ROW];
    UNROLL
    for (int i = 0; i < TILE * PER_ROW; i++)
        sum[i] = vf_load(w + i * VF_LANES);
    for (int k = 0; k < n; k++) {
        UNROLL
        for (int i = 0; i < TILE * PER_ROW; i++)
            sum[i] = sum[i] + vf_load(e + k * WIDE + i % PER_ROW * VF_LANES) * vf_set(t[(size_t)k * ld + (size_t)(i / PER_ROW)]);
    }
    UNROLL
    for (int i = 0; i < TILE * PER_ROW; i++)
        vf_store(w + i * VF_LANES, sum[i]);
}

static void update_one(int n, const float *t, size_t ld, const float *e, float *w)
{
    vf sum[PER_ROW];
    UNROLL
    for (int v = 0; v < PER_ROW; v++)
        sum[v] = vf_load(w + v * VF_LANES);
    for (int k = 0; k < n; k++) {
        UNROLL
        for (int v = 0; v < PER_ROW; v++)
            sum[v] = sum[v] + vf_load(e + k * WIDE + v * VF_LANES) * vf_set(t[(size_t)k * ld]);
    }
    UNROLL
    for (int v = 0; v < PER_ROW; v++)
        vf_store(w + v * VF_LANES, sum[v]);
}

static void lanes_update(int rows, int n, const float *t, size_t ld, const float *e, float *w)
{
    int j = 0;
    for (; j + TILE <= rows; j += TILE)
        update_tile(n, t + j, ld, e, w + (size_t)j * WIDE);
    for (; j < rows; j++)
        update_one(n, t + j, ld, e, w + (size_t)j * WIDE);
}

const struct linear_kernels LINEAR_SET = { lanes_syrk, lanes_downdate, lanes_update };
