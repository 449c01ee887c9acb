/* clip.h - errors of rounded matrices in their outputs, group by group, and AWQ's clip search: how far the largest
 * weights of each row and group are cut before rounding. */
#ifndef QDELTA_QUANTIZERS_CLIP_H
#define QDELTA_QUANTIZERS_CLIP_H

#include "solve.h"

/* Second moments of a matrix' inputs inside each group of columns: group b holds sum x_i x_j, i >= j, at
 * [b][i * width + j].  Columns past the last whole group belong to none.  In errors damp times the mean square of all
 * columns counts as added to the diagonal, for inputs that the calibration text does not show (as in GPTQ). */
struct moments {
    int cols, width;
    double damp;
    double *sum;                /* [cols / width][width * width] */
};
bool moments_open(struct moments *m, int cols, int width, double damp, struct error *err);
void moments_add(struct moments *m, struct pool *pool, const float *x, int rows, size_t ld);
void moments_close(struct moments *m);

/* error += over all rows and groups sum e_i H_ij e_j, e = (decoded blocks - w) / col_scale (NULL: 1). */
bool moments_error(const struct moments *m, enum format_id f, const float *w, const uint8_t *blocks, int rows,
                   const float *col_scale, struct pool *pool, double *error, struct error *err);

enum { CLIP_STEPS = 10 };       /* bounds tried: the largest magnitude, less 1/20 of it for each step */

/* Clamp the weights of w [rows][cols] to the bound, for each row and group of the grid, whose rounding errs least in
 * the output: sum over the group of e_i H_ij e_j, e the error against the unclamped weights.  importance weights the
 * grid's scales; col_scale (NULL: 1) is what the columns of w were multiplied by after H was taken.  The whole range
 * is among the bounds, so a group never ends worse.  m has the grid's groups.  Returns how many groups were cut; out of
 * memory: none. */
int64_t clip_rows(const struct grid *g, float *w, int rows, const float *importance, const struct moments *m,
                  const float *col_scale, struct pool *pool);

#endif
