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
            for (int r = 0; r < ROWS_F; r++)
                for (int v = 0; v < VECS_F; v++)
                    sum[r][v] = vf_set(0);
            for (int t = 0; t < n; t++)
                for (int r = 0; r < ROWS_F; r++) {
                    vf x = vf_set(a[t * PANEL + i + r]);
                    for (int v = 0; v < VECS_F; v++)
                        sum[r][v] = sum[r][v] + x * vf_load(b + t * PANEL + j + v * VF_LANES);
                }
            for (int r = 0; r < ROWS_F; r++)
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
            for (int r = 0; r < ROWS_D; r++)
                for (int v = 0; v < VECS_D; v++)
                    sum[r][v] = vd_set(0);
            for (int k = 0; k < n; k++)
                for (int r = 0; r < ROWS_D; r++) {
                    vd x = vd_set(a[k * PANEL + i + r]);
                    for (int v = 0; v < VECS_D; v++)
                        sum[r][v] = sum[r][v] + x * vd_load(b + k * PANEL + j + v * VD_LANES);
                }
            for (int r = 0; r < ROWS_D; r++)
                for (int v = 0; v < VECS_D; v++) {
                    double *at = c + (size_t)(i + r) * ld + (size_t)(j + v * VD_LANES);
                    vd_store(at, vd_load(at) - sum[r][v]);
                }
        }
}

static inline void update_rows(int rows, int n, const float *t, size_t ld, const float *e, float *w)
{
    vf sum[TILE][PER_ROW];
    for (int j = 0; j < rows; j++)
        for (int v = 0; v < PER_ROW; v++)
            sum[j][v] = vf_load(w + j * WIDE + v * VF_LANES);
    for (int k = 0; k < n; k++)
        for (int j = 0; j < rows; j++) {
            vf u = vf_set(t[(size_t)j * ld + (size_t)k]);
            for (int v = 0; v < PER_ROW; v++)
                sum[j][v] = sum[j][v] + vf_load(e + k * WIDE + v * VF_LANES) * u;
        }
    for (int j = 0; j < rows; j++)
        for (int v = 0; v < PER_ROW; v++)
            vf_store(w + j * WIDE + v * VF_LANES, sum[j][v]);
}

static void lanes_update(int rows, int n, const float *t, size_t ld, const float *e, float *w)
{
    int j = 0;
    for (; j + TILE <= rows; j += TILE)
        update_rows(TILE, n, t + (size_t)j * ld, ld, e, w + (size_t)j * WIDE);
    for (; j < rows; j++)
        update_rows(1, n, t + (size_t)j * ld, ld, e, w + (size_t)j * WIDE);
}

const struct linear_kernels LINEAR_SET = { lanes_syrk, lanes_downdate, lanes_update };
