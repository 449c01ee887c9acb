/* solve.h - rounding of whole matrices against their inputs: the GPTQ sweep and coordinate descent, WIDE rows of
 * weights side by side. */
#ifndef QDELTA_QUANTIZERS_SOLVE_H
#define QDELTA_QUANTIZERS_SOLVE_H

#include "job.h"
#include "linear.h"

/* A scalar grid: value = s c + m with whole c in [lo, hi], or s times an iq4 value. */
struct grid {
    const char *name;
    enum format_id format;      /* of the blocks */
    int group;                  /* columns that share s and m */
    int lo, hi;
    bool codebook;              /* iq4 values, codes 0..15 */
    bool refit;                 /* s may be chosen anew for each block of 32 (fp16) */
    bool asymmetric;            /* of the group-wise int4 grids */
};
const struct grid *grid_find(enum format_id f, const char *format_name);

enum { BLOCK = 32 };            /* s and m are kept for each 32 columns, whatever the group */
_Static_assert((int)BLOCK == (int)DEPTH, "a block of codes is a block of rows of a tiled matrix");

/* Scales of one row by importance h (the diagonal of H), stored ones; bytes gets the headers of its blocks. */
void grid_fit(const struct grid *g, const float *w, const float *h, int n, float *s, float *m, uint8_t *bytes);
/* The code nearest to w where the scale is s and the min m, and what a code stands for. */
int grid_code(const struct grid *g, float w, float s, float m);
float grid_value(const struct grid *g, int code, float s, float m);
/* Put codes (whole numbers c) and refitted scales into the blocks. */
void grid_put(const struct grid *g, const int8_t *codes, const float *s, int n, uint8_t *bytes);

/* ---- one group of WIDE rows; arrays are [..][WIDE] ---- */
struct sweep {
    const struct grid *grid;
    int n;
    const float *t;             /* tiled [n][n]: unit triangular factor, t[k][j] for k < j, in order of the sweep */
    const double *d;            /* [n]: loss of a unit error in column k */
    const int *order;           /* [n]: original column of sweep position k */
    const float *s, *inv, *m;   /* [n / 32] */
    const float *original;      /* [n], original order */
    float *w;                   /* [n], sweep order; used up */
    float *codes;               /* [n], original order */
    double *loss;               /* [WIDE] */
};
struct descent {
    const struct grid *grid;
    int n, passes, searches;
    const float *h;             /* tiled [n][n], symmetric, damped */
    const float *w;             /* [n] */
    float *s, *inv;             /* changed by refits */
    const float *m;
    float *codes;
    float *value, *gradient;    /* [n] each: what the codes stand for, H (value - w) */
    int64_t changes;
};
struct solve_kernels {
    void (*sweep)(const struct sweep *p);
    void (*descend)(struct descent *p);
};
extern const struct solve_kernels solve_generic, solve_avx2, solve_avx512;
const struct solve_kernels *solve_best(void);

/* ---- one matrix ---- */
struct solution {
    double loss;                /* tr(E H E') / tr(W H W'), undamped H */
    double plain_loss;          /* the same of rounding with the same scales and no compensation */
    double damp;                /* used, relative to the mean of the diagonal */
    bool factored;              /* false: coordinate descent alone */
    int64_t subnormal;          /* blocks with an fp16 scale below 2^-14 */
    uint8_t *bytes;             /* [rows] blocks of the grid's format; caller frees */
};
enum algorithm { ALGORITHM_GPTQ, ALGORITHM_CD, ALGORITHM_RTN };
struct solve_options {
    enum algorithm algorithm;
    double damp;                /* 0: the usual one */
    int passes;                 /* of coordinate descent after the sweep */
    bool act_order;
    bool plain_too;             /* fill plain_loss */
    double shrink;              /* share taken off the correlations, the entries off the diagonal of H */
    bool drift;                 /* make up for the inputs' drift, where H has it */
    int searches;               /* rounds of choosing scale and codes of a block together, a pass of descent after each */
};
/* Every row to the nearest codes, scales by importance [cols]; formats without a grid by their own search.
 * bytes [rows] blocks of format f. */
void round_rows_plain(enum format_id f, const char *format_name, const float *w, int rows, int cols, const float *importance,
                      struct pool *pool, uint8_t *bytes);
/* w [rows][cols] row-major, H finished.  With drift D (H's) the weights to be met are not w but
 * w + w D (H + damp)^-1, which come closest to the outputs that w has for the inputs wanted: quantization.md 2.2,
 * GPTAQ, and 2.3, Qronos. */
bool solve_matrix(const struct grid *g, const float *w, int rows, int cols, const struct hessian *h,
                  const struct solve_options *o, struct pool *pool, struct solution *out, struct error *err);

/* A fitted scale in fp16, at most the largest finite one: fits against drifted inputs may pass it where no weight does. */
static inline float fp16_scale(float s)
{
    const float most = 65504;
    return f16_to_f32(f32_to_f16(s > most ? most : s < -most ? -most : s));
}

#endif
