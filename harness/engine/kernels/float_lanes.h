/* float_lanes.h - the float tile and its expansion, written once in the widest float vectors of a set.  Private.
 *
 * Lanes are rows of W, so that an output's one sum needs no tree and every width gives the same bits.  The including file
 * defines vf (VF_N floats) with vf_load, vf_store, vf_set, vf_add, vf_fma(a, b, c) = a b + c, and
 *     vf vf_widen(f, p)       VF_N elements of a row stored as f: f16 or f32
 *     vf vf_even(x), vf_odd(x)    of VF_N pairs of bf16, as f32
 *     void vf_transpose(vf *x)    VF_N x VF_N in place
 *     TILE_VECTORS            vectors of rows side by side in a tile
 *     FLOAT_GROUP, FLOAT_COUNTS(X)    activation rows of the widest tile: TILE_VECTORS x FLOAT_GROUP sums stay in registers; X(1) .. X(FLOAT_GROUP)
 *     DIRECT_GROUP, DIRECT_COUNTS(X)  likewise, of the widest product straight from the registers in which rows are turned */
#ifndef QDELTA_FLOAT_LANES_H
#define QDELTA_FLOAT_LANES_H

#include "tiles.h"

/* Columns that one turn gives: bf16 is turned as pairs. */
INLINE int turned(const enum format_id f)
{
    return f == FORMAT_BF16 ? 2 * VF_N : VF_N;
}

/* The next columns of VF_N rows step bytes apart. */
INLINE void turn(const enum format_id f, const uint8_t *rows, size_t step, vf *c)
{
    UNROLL
    for (int i = 0; i < VF_N; i++)
        c[i] = f == FORMAT_BF16 ? vf_load(rows + (size_t)i * step) : vf_widen(f, rows + (size_t)i * step);
    vf_transpose(c);
}

INLINE vf column(const enum format_id f, const vf *c, const int j)
{
    return f != FORMAT_BF16 ? c[j] : j % 2 ? vf_odd(c[j / 2]) : vf_even(c[j / 2]);
}

/* The last columns of a row, fewer than a turn gives: the same, through a buffer. */
static void turn_rest(const enum format_id f, const uint8_t *rows, size_t step, int left, float (*out)[VF_N])
{
    uint8_t part[VF_N][4 * VF_N];
    vf c[VF_N];
    memset(part, 0, sizeof part);
    for (int i = 0; i < VF_N; i++)
        memcpy(part[i], rows + (size_t)i * step, (size_t)format_row_bytes(f, left));
    turn(f, part[0], sizeof part[0], c);
    for (int j = 0; j < left; j++)
        vf_store(out[j], column(f, c, j));
}

INLINE void read_ahead(const uint8_t *rows, size_t step)
{
    UNROLL
    for (int i = 0; i < VF_N; i++)
        __builtin_prefetch(rows + (size_t)i * step);
}

INLINE void expand_as(const enum format_id f, const uint8_t *rows, size_t step, int n, const uint8_t *next, float *w)
{
    const int wide = turned(f), size = f == FORMAT_F32 ? 4 : 2;
    for (int r = 0; r < FLOAT_ROWS; r += VF_N, rows += VF_N * step, next += VF_N * step, w += VF_N) {
        int k = 0;
        for (; k + wide <= n; k += wide) {
            vf c[VF_N];
            read_ahead(next + k * size, step);
            turn(f, rows + k * size, step, c);
            UNROLL
            for (int j = 0; j < wide; j++)
                vf_store(w + (k + j) * FLOAT_ROWS, column(f, c, j));
        }
        if (k < n) {
            float rest[2 * VF_N][VF_N];
            turn_rest(f, rows + k * size, step, n - k, rest);
            for (int j = 0; k + j < n; j++)
                vf_store(w + (k + j) * FLOAT_ROWS, vf_load(rest[j]));
        }
    }
}

/* a [v][T]: sums of VF_N rows each; to acc [T][FLOAT_ROWS]. */
INLINE void add_part(const vf *a, const int vectors, const int T, bool begins, float *acc)
{
    UNROLL
    for (int t = 0; t < T; t++)
        UNROLL
        for (int v = 0; v < vectors; v++) {
            float *at = acc + t * FLOAT_ROWS + v * VF_N;
            vf_store(at, begins ? a[v * T + t] : vf_add(vf_load(at), a[v * T + t]));
        }
}

INLINE void tile_float(const float *w, const float *x, const int T, int n, bool begins, float *acc)
{
    for (int r = 0; r < FLOAT_ROWS; r += TILE_VECTORS * VF_N, w += TILE_VECTORS * VF_N, acc += TILE_VECTORS * VF_N) {
        vf a[TILE_VECTORS * FLOAT_GROUP];
        UNROLL
        for (int i = 0; i < TILE_VECTORS * T; i++)
            a[i] = vf_set(0.0f);
        for (int k = 0; k < n; k++) {
            vf c[TILE_VECTORS];
            UNROLL
            for (int v = 0; v < TILE_VECTORS; v++)
                c[v] = vf_load(w + k * FLOAT_ROWS + v * VF_N);
            UNROLL
            for (int t = 0; t < T; t++) {
                vf b = vf_set(x[t * FLOAT_PART + k]);
                UNROLL
                for (int v = 0; v < TILE_VECTORS; v++)
                    a[v * T + t] = vf_fma(c[v], b, a[v * T + t]);
            }
        }
        add_part(a, TILE_VECTORS, T, begins, acc);
    }
}

/* Few activation rows: two vectors of rows in turn, so that each sum may wait for itself. */
INLINE void direct_float(const enum format_id f, const uint8_t *rows, size_t step, int n, const uint8_t *next, const float *x,
                         const int T, bool begins, float *acc)
{
    const int wide = turned(f), size = f == FORMAT_F32 ? 4 : 2;
    for (int r = 0; r < FLOAT_ROWS; r += 2 * VF_N, rows += 2 * VF_N * step, next += 2 * VF_N * step, acc += 2 * VF_N) {
        vf a[2 * DIRECT_GROUP];
        int k = 0;
        UNROLL
        for (int i = 0; i < 2 * T; i++)
            a[i] = vf_set(0.0f);
        for (; k + wide <= n; k += wide)
            UNROLL
            for (int v = 0; v < 2; v++) {
                vf c[VF_N];
                read_ahead(next + (size_t)(v * VF_N) * step + k * size, step);
                turn(f, rows + (size_t)(v * VF_N) * step + k * size, step, c);
                UNROLL
                for (int j = 0; j < wide; j++)
                    UNROLL
                    for (int t = 0; t < T; t++)
                        a[v * T + t] = vf_fma(column(f, c, j), vf_set(x[t * FLOAT_PART + k + j]), a[v * T + t]);
            }
        for (int v = 0; v < 2 && k < n; v++) {
            float rest[2 * VF_N][VF_N];
            turn_rest(f, rows + (size_t)(v * VF_N) * step + k * size, step, n - k, rest);
            for (int j = 0; k + j < n; j++)
                for (int t = 0; t < T; t++)
                    a[v * T + t] = vf_fma(vf_load(rest[j]), vf_set(x[t * FLOAT_PART + k + j]), a[v * T + t]);
        }
        add_part(a, 2, T, begins, acc);
    }
}

/* ---- as tile_ops has them; each count of activation rows a function of its own, so that registers are its sums ---- */

typedef void tile_shape(const float *w, const float *x, int n, bool begins, float *acc);
typedef void direct_shape(const uint8_t *rows, size_t step, int n, const uint8_t *next, const float *x, bool begins, float *acc);

#define TILE_SHAPE(T)                                                                                   \
    static void tile_float_##T(const float *w, const float *x, int n, bool begins, float *acc)          \
    {                                                                                                   \
        tile_float(w, x, T, n, begins, acc);                                                            \
    }
#define DIRECT_SHAPE(F, T)                                                                                                        \
    static void direct_##F##_##T(const uint8_t *rows, size_t step, int n, const uint8_t *next, const float *x, bool begins,       \
                                 float *acc)                                                                                      \
    {                                                                                                                             \
        direct_float(F, rows, step, n, next, x, T, begins, acc);                                                                  \
    }
#define DIRECT_OF(T) DIRECT_SHAPE(FORMAT_F32, T) DIRECT_SHAPE(FORMAT_F16, T) DIRECT_SHAPE(FORMAT_BF16, T)
#define TILE_NAME(T) [T] = tile_float_##T,
#define DIRECT_NAMES(T) [T] = { [FORMAT_F32] = direct_FORMAT_F32_##T, direct_FORMAT_F16_##T, direct_FORMAT_BF16_##T },

FLOAT_COUNTS(TILE_SHAPE)
DIRECT_COUNTS(DIRECT_OF)
static tile_shape *const tile_shapes[] = { FLOAT_COUNTS(TILE_NAME) };
static direct_shape *const direct_shapes[][FORMAT_BF16 + 1] = { DIRECT_COUNTS(DIRECT_NAMES) };
_Static_assert(FORMAT_F16 == FORMAT_F32 + 1 && FORMAT_BF16 == FORMAT_F16 + 1, "order of the names");
_Static_assert(ARRAY_LEN(tile_shapes) == FLOAT_GROUP + 1 && ARRAY_LEN(direct_shapes) == DIRECT_GROUP + 1, "a shape for each count");

static void expand_float(enum format_id f, const uint8_t *rows, size_t step, int n, const uint8_t *next, float *w)
{
    if (f == FORMAT_BF16)
        expand_as(FORMAT_BF16, rows, step, n, next, w);
    else if (f == FORMAT_F16)
        expand_as(FORMAT_F16, rows, step, n, next, w);
    else
        expand_as(FORMAT_F32, rows, step, n, next, w);
}

static void multiply_float(const float *w, const float *x, int T, int n, bool begins, float *acc)
{
    tile_shapes[T](w, x, n, begins, acc);
}

static void multiply_direct(enum format_id f, const uint8_t *rows, size_t step, int n, const uint8_t *next, const float *x, int T,
                            bool begins, float *acc)
{
    direct_shapes[T][f](rows, step, n, next, x, begins, acc);
}

static int widest_float(void)
{
    return FLOAT_GROUP;
}

static int widest_direct(void)
{
    return DIRECT_GROUP;
}

#define FLOAT_OPS                                                                                                 \
    .float_group = FLOAT_GROUP, .direct_group = DIRECT_GROUP, .expand_float = expand_float,                       \
    .multiply_float = multiply_float, .multiply_direct = multiply_direct

#endif
