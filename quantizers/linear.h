/* linear.h - the linear algebra of calibrated quantizers: H = sum x x', factors of H, and products with rows of
 * weights held WIDE side by side.
 *
 * Products within a chunk of tokens are summed in float32, chunks in float64.  Work is split by tiles of the result,
 * never inside a sum, and every product is fused with its addition: the same bits for any thread count and set. */
#ifndef QDELTA_QUANTIZERS_LINEAR_H
#define QDELTA_QUANTIZERS_LINEAR_H

#include "base/base.h"

enum { WIDE = 64, PANEL = 64, CHUNK = 512, CHUNKS = 4 };
/* A square matrix [n][n], n a multiple of DEPTH, in the order in which update reads it: DEPTH rows at a time, in
 * strips of STRIP columns. */
enum { DEPTH = 32, STRIP = 4 };
static inline size_t tiled_at(int n, int row, int col)
{
    return (size_t)(row / DEPTH) * DEPTH * (size_t)n + (size_t)(col / STRIP * DEPTH + row % DEPTH) * STRIP + (size_t)(col % STRIP);
}

struct linear_kernels {
    /* h[i][j] += sum over t < n of a[t][i] b[t][j], PANEL x PANEL, a and b packed [n][PANEL]: float32 within CHUNK */
    void (*syrk)(int n, const float *a, const float *b, double *h, size_t ld);
    /* c[i][j] -= sum over k < n of a[k][i] b[k][j], packed [n][PANEL] */
    void (*downdate)(int n, const double *a, const double *b, double *c, size_t ld);
    /* w[j] += sum over k < blocks * DEPTH of e[k] t[k][j], for j < strips * STRIP; w and e are [..][WIDE].  t: tiled,
     * its first row at a block's begin; step: floats from block to block. */
    void (*update)(int strips, int blocks, const float *t, size_t step, const float *e, float *w);
};
extern const struct linear_kernels linear_generic, linear_avx2, linear_avx512;
const struct linear_kernels *linear_best(void);

/* ---- sum of x x' ---- */
struct hessian {
    int n;                      /* columns */
    int64_t tokens;
    double *h;                  /* [n][n] after hessian_finish: symmetric, mean over tokens */
    size_t ld;                  /* n rounded up to PANEL */
    float *packed;              /* [ld / PANEL][CHUNKS * CHUNK][PANEL]: the rows at hand */
    double *drift;              /* [n][ld] or NULL: mean of (wanted - x) x', how inputs moved from those wanted */
    float *packed_drift;
};
bool hessian_open(struct hessian *h, int n, struct error *err);
void hessian_add(struct hessian *h, struct pool *pool, const float *x, int rows, size_t ld);
/* Room for drift, and rows of it: want is [rows][want_ld], what x would be without the errors before it. */
bool hessian_open_drift(struct hessian *h, struct error *err);
void hessian_add_drift(struct hessian *h, struct pool *pool, const float *x, size_t ld, const float *want, size_t want_ld, int rows);
/* Fill the lower half and divide by tokens; false when an input was not finite. */
bool hessian_finish(struct hessian *h);
void hessian_close(struct hessian *h);

/* ---- factors ---- */
/* a [n][ld], symmetric: lower half becomes L with L L' = a.  False: not positive definite. */
bool cholesky(double *a, int n, size_t ld, struct pool *pool, struct error *err);

#endif
