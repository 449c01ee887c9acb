/* kernels.h - arithmetic with one defined result.  Private to engine/.
 *
 * Every operation here has a definition in terms of IEEE single operations in a stated order; the generic
 * set is that definition in plain C; the avx2, avx512, neon and neon_dot sets must give the same bits (tests compare
 * them bit for bit, not within a tolerance).
 *
 * Sums.
 *  Float weights (f32, f16, bf16, codebooks; every format in ACT_F32), decoded: one accumulator per output, from +0, takes the
 *      columns in order, acc = fma(w[k], x[k], acc), in parts of FLOAT_PART = 256 columns (the last what is left); the parts
 *      are added in order, y = ((p0 + p1) + p2) ...  K is never split by batch, chunk or thread.  So does the library with
 *      which reference logits are computed (a matrix product in float32), up to the 256 columns that the recorded models
 *      have, and it needs no tree at the end: lanes are outputs.  Parts keep the rounding of long rows small.
 *  Integer weights in ACT_I16: each activation row is cut into blocks of 32; amax = max |x|,
 *      s = amax / 32767, a = round-to-nearest-even(x * (32767 / amax)) as int16 (the quotient and the
 *      product each rounded once to f32).  A block with amax < 1e-30 counts as zero in every rounding;
 *      NaN makes s NaN.
 *      For each block in order, for each sub-block of int_block elements in order:
 *      isum = sum code * a (exact, int32); acc = fma((float)isum, ws * s, acc), ws * s rounded once;
 *      formats with a min then acc = fma((float)asum, wm * s, acc), asum = sum a over the sub-block (exact).
 *      One accumulator per output, from +0.
 *  ACT_Q8: 32-wide formats: Q8_0 rounding (s = amax / 127, a = round-half-away(x * (1 / s)), s kept as the
 *      f32 of its f16), the same block sums.  256-wide formats: Q8_K rounding (quantization.md 1.3), one s
 *      per 256, sub-blocks as above.
 *
 * Functions.  exp_f32, tanh_f32, gelu (tanh form), silu, rsqrt: own polynomials, the same operation order in
 * every set, error stated beside each and tested over the whole range.
 *
 * Weights are prepared once (matrix_open): packed into the set's tile order, or used in place. */
#ifndef QDELTA_KERNELS_H
#define QDELTA_KERNELS_H

#include "base/base.h"
#include "engine/engine.h"
#include "model/model.h"

struct kernels;         /* one set; see the table in kernels.c */
const struct kernels *kernels_find(const char *name, struct error *err);       /* NULL name: fastest supported */
const char *kernels_name(const struct kernels *k);
const struct kernels *const *kernels_all(void);         /* compiled in, fastest first; NULL ends */
bool kernels_supported(const struct kernels *k);

/* ---- activations: rows prepared once, multiplied by many matrices ---- */

struct acts {
    enum act_mode mode;
    int rows, cols, max_rows, max_cols;
    const float *f32;           /* borrowed, [rows][ld] */
    size_t ld;
    void *packed;               /* rounded forms, made when a matrix first asks for them */
    size_t packed_bytes;
    int packed_kind, packed_n;  /* what packed holds: 0 nothing; rows */
};
bool acts_open(struct acts *a, int max_rows, int max_cols, enum act_mode mode, struct error *err);
void acts_close(struct acts *a);
void acts_set(struct acts *a, const float *x, size_t ld, int rows, int cols);

/* ---- matrices ---- */

struct matrix {
    const struct tensor *t;     /* borrowed */
    const struct kernels *k;
    enum act_mode mode;
    void *packed;               /* NULL: in place */
    size_t packed_bytes;
    int layout;
};
bool matrix_open(struct matrix *w, const struct kernels *k, const struct tensor *t, enum act_mode mode,
                 bool in_place, struct pool *pool, struct error *err);
void matrix_close(struct matrix *w);

/* y[i][0 .. t->rows) = W[mat] x[rows_of_a[i]], i < n (row_list NULL: rows 0 .. n of a).  Threads split the rows of W. */
void matrix_apply(const struct matrix *w, int mat, struct acts *a, const int *row_list, int n, float *y, size_t ldy,
                  struct pool *pool);

/* matrix_apply of n_out matrices (mat 0) to the same n rows; one round of the threads where they can share one. */
struct matrix_out {
    const struct matrix *w;
    float *y;
    size_t ldy;
};
enum { MATRICES_AT_ONCE = 3 };
void matrix_apply_each(const struct matrix_out *out, int n_out, struct acts *a, int n, struct pool *pool);

/* The rows act(gate x) * (up x) as matrix_apply(next, ...) would round them, put into to; its f32 rows are not there.  False
 * where the set or the formats have no such way: nothing was done. */
bool matrix_apply_glu(const struct matrix *gate, const struct matrix *up, struct acts *a, int n, enum activation act,
                      const struct matrix *next, struct acts *to, struct pool *pool);

/* ---- vectors (rows are independent; callers split them over threads) ---- */

/* y = (x * s) * w, w NULL: x * s.  s = 1 / sqrtf(sum / n + eps), each operation rounded, sum of squares: each square rounded,
 * 32 lanes (lane l takes k = l, l + 32, ..), in parts of 512 that are added lane by lane in order; then ((l + (l + 8)) + (l + 16)) +
 * (l + 24) for l < 8, and those eight in order.  The reference's order for any n that is a multiple of 32, up to 8192. */
void vec_rms_norm(const struct kernels *k, const float *x, const float *w, float eps, float *y, int n);
void vec_add(const struct kernels *k, float *y, const float *x, int n);                        /* y += x */
void vec_scale(const struct kernels *k, float *y, float s, int n);                             /* y *= s */
void vec_glu(const struct kernels *k, enum activation act, const float *gate, const float *up, float *y, int n);
void vec_exp(const struct kernels *k, const float *x, float *y, int n);
void vec_tanh(const struct kernels *k, const float *x, float *y, int n);
void vec_softcap(const struct kernels *k, float *y, float cap, int n);                         /* cap * tanh(y / cap) */
/* Rotate pairs (i, i + n/2) of x[n] by angle position * inv_freq[i]; sin and cos by a polynomial (kernels.c) of the
 * angle, which is the product rounded to f32: both as the reference implementations have them (at scale 1.0 Gemma 4's
 * scores show the difference); the table is the same everywhere. Prepared tables: rope_row fills cos/sin [n/2]. */
void rope_row(const float *inv_freq, int half, int position, float *cos_out, float *sin_out);
void vec_rope(const struct kernels *k, float *x, const float *cos_t, const float *sin_t, int n);

/* One query head over a list of K/V runs (prefix parts, then own tail), in position order:
 * scores s_j = (a float product's sum of q and k_j) * scale, softcapped when cap > 0; two-level online softmax over tiles of
 * ATTENTION_TILE positions counted from absolute position 0 (so that chunking and prefix splits cannot
 * change the tiling): m = max of the tile's scores; when it exceeds the maximum so far, sum and out are multiplied
 * by exp(old - m); p_j = exp(s_j - max); the tile's p are summed in 16 lanes (position mod 16, unseen positions
 * +0) and the tree s[i] = acc[i] + acc[i + 8] (i < 8), t[i] = s[i] + s[i + 4], u[i] = t[i] + t[i + 2], u[0] + u[1], then
 * added to the sum; out[h] = sum p_j v_j in position order with fma, divided by the sum
 * once at the end.  The runs must cover [from, to). */
enum { ATTENTION_TILE = 64 };
struct kv_run {
    const float *k, *v;         /* [n][stride] */
    size_t stride;
    int first;                  /* absolute position of element 0 */
    int n;
};
void attention_head(const struct kernels *k, const float *q, int h, const struct kv_run *runs, int n_runs,
                    int from, int to /* positions from <= j < to are seen */, float scale, float cap, float *out,
                    float *scratch /* [2 * ATTENTION_TILE + h] */);

/* The same for many queries over the same runs, tile by tile, so that K and V are read once for all of them: start,
 * tiles as often as there are lists of runs, end.  from is a multiple of ATTENTION_TILE or lies at or before every
 * query's from; to likewise, or at or beyond every query's to: no tile is split between two calls. */
struct attention_query {
    const float *q;
    float *out;
    int from, to;               /* positions it sees */
    float max, sum;             /* of the tiles so far */
};
void attention_start(struct attention_query *queries, int n, int h);
void attention_tiles(const struct kernels *k, struct attention_query *queries, int n, int h, const struct kv_run *runs,
                     int n_runs, int from, int to, float scale, float cap);
void attention_end(struct attention_query *queries, int n, int h);

/* Greedy top-2 and log-sum-exp over logits: index of the maximum (lowest on ties), values, and
 * ln sum exp(x - max) + max: differences and exponentials in f32, the sum in 16 double lanes and the tree. */
struct top2 {
    int index;
    float first, second;
    double log_sum;
};
double ln_f64(double x);        /* natural logarithm of a normal x > 0, <= 1 ulp, the same everywhere */
void vec_top2(const struct kernels *k, const float *x, int n, struct top2 *out);

#endif
