/* set.h - what a kernel set is.  Private to engine/kernels/. */
#ifndef QDELTA_KERNEL_SET_H
#define QDELTA_KERNEL_SET_H

#include "engine/kernels/kernels.h"

/* How activation rows are rounded for a matrix: chosen by mode and format, kept in acts.packed_kind. */
enum rounding {
    ROUND_NONE,         /* f32 rows as they are */
    ROUND_I16,          /* 32-blocks to int16 */
    ROUND_Q8_0,         /* 32-blocks to int8, scale through f16 */
    ROUND_Q8_K,         /* 256-blocks to int8 */
};
enum rounding rounding_of(enum act_mode mode, enum format_id format);

/* An activation block whose largest magnitude is below this counts as all zero: 32767 / amax stays finite. */
#define ACT_LEAST 1e-30f

/* Columns whose products go into one accumulator (kernels.h): whole blocks of every format. */
enum { FLOAT_PART = 256 };

struct vec_ops {
    float (*squares)(const float *x, int n);
    void (*scale)(float *y, float s, int n);
    void (*add)(float *y, const float *x, int n);
    void (*scale_by)(const float *x, float s, const float *w, float *y, int n);
    void (*silu_mul)(const float *gate, const float *up, float *y, int n);
    void (*gelu_mul)(const float *gate, const float *up, float *y, int n);
    void (*softcap)(float *y, float cap, int n);
    void (*exp)(const float *x, float *y, int n);
    void (*tanh)(const float *x, float *y, int n);
    void (*rope)(float *x, const float *cos_t, const float *sin_t, int n);
    float (*max)(const float *x, int n);
    double (*sum_exp)(const float *x, float max, int n);
    void (*attention)(const float *q, int h, const struct kv_run *runs, int n_runs, int from, int to, float scale,
                      float cap, float *out, float *scratch);
    void (*attention_tiles)(struct attention_query *queries, int n, int h, const struct kv_run *runs, int n_runs, int from,
                            int to, float scale, float cap);
};

/* One product: what matrix_apply was asked. */
struct product {
    const struct matrix *w;
    int mat;
    struct acts *a;
    const int *row_list;
    int n;
    float *y;
    size_t ldy;
    struct pool *pool;
    enum rounding rounding;
};

/* What the set's instructions reach when nothing else is in the way: each runs rounds of them and returns how many
 * operations (a multiplication and an addition are two) or bytes that were. */
struct peak_ops {
    double (*int8)(int rounds), (*int16)(int rounds), (*f32)(int rounds);
    double (*read)(const void *p, size_t bytes);
};
enum { PEAK_CHAINS = 12 };      /* independent sums: more than latency times issue width */

struct kernels {
    const char *name;
    bool (*supported)(void);
    struct vec_ops vec;
    bool (*pack)(struct matrix *w, struct pool *pool, struct error *err);      /* NULL: always in place */
    void (*apply)(const struct product *p);
    /* n products of the same activations; may be NULL. */
    void (*apply_each)(const struct product *p, int n);
    /* See matrix_apply_glu; p: gate and up, next: whose activations come out.  May be NULL. */
    bool (*apply_glu)(const struct product *p, enum activation activation, const struct product *next);
    const struct tile_ops *tile;        /* of sets that multiply by tiles.c */
    const struct peak_ops *peak;
};

/* A set that this build's target lacks is there by name and supported nowhere. */
extern const struct kernels kernels_generic, kernels_avx2, kernels_avx512, kernels_neon, kernels_neon_dot;

/* Uninitialised, aligned to 64 bytes or more; free() releases it. */
void *kernels_large_pages(size_t bytes, struct error *err);

static inline const uint8_t *matrix_row(const struct matrix *w, int mat, int row)
{
    return tensor_at(w->t, mat, row);
}

static inline int acts_row(const struct product *p, int i)
{
    return p->row_list ? p->row_list[i] : i;
}

#endif
