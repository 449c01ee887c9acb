/* float_tiles.c - products with float weights: the loops around multiply_float of tiles.h. */
#include "panel.h"

#include <string.h>

/* Accumulators of FLOAT_TILE_ROWS x FLOAT_BLOCK_ROWS outputs stay in L2. */
enum { FLOAT_BLOCK_ROWS = 96, FLOAT_TILE_ROWS = 32 };

struct float_job {
    const struct product *p;
    const struct tile_ops *ops;
    int chunks, padded;         /* columns padded to 16 */
};

static int float_steps(const struct float_job *j, int chunk)
{
    return at_most(j->padded - chunk * FLOAT_CHUNK, FLOAT_CHUNK) / 16;
}

static float *float_panel(const struct float_job *j, int chunk, int first)
{
    return (float *)j->p->a->packed + (size_t)chunk * FLOAT_CHUNK * (size_t)j->p->n +
           (size_t)first * (size_t)float_steps(j, chunk) * 16;
}

static void gather_group(void *ctx, int job, int thread)
{
    const struct float_job *j = ctx;
    int first = job * j->ops->float_group, T = at_most(j->ops->float_group, j->p->n - first), cols = j->p->a->cols;
    (void)thread;
    for (int t = 0; t < T; t++)
        for (int c = 0; c < j->chunks; c++) {
            float buffer[FLOAT_CHUNK], *to = float_panel(j, c, first) + t * 16;
            int n = at_most(cols - c * FLOAT_CHUNK, FLOAT_CHUNK);
            const float *x = panel_row(j->p, first + t, c * FLOAT_CHUNK, n, buffer);
            for (int k = 0; k < n; k += 16, to += T * 16) {
                float step[16] = { 0 };
                memcpy(step, x + k, (size_t)at_most(16, n - k) * sizeof *step);
                memcpy(to, step, sizeof step);
            }
        }
}

static void expand_rows(const struct float_job *j, int row, int rows, int chunk, float *out)
{
    const struct tensor *t = j->p->w->t;
    int n = at_most((int)t->cols - chunk * FLOAT_CHUNK, FLOAT_CHUNK);
    for (int r = 0; r < rows; r++) {
        const uint8_t *from = matrix_row(j->p->w, j->p->mat, row + r);
        float *to = out + (size_t)(r / FLOAT_ROWS) * FLOAT_ROWS * FLOAT_CHUNK + r % FLOAT_ROWS * 16;
        j->ops->expand_float(t->format, from + format_row_bytes(t->format, (int64_t)chunk * FLOAT_CHUNK), n, to);
    }
}

/* acc of rows x activation rows first .. end - 1: [group][row tile][4][T][16]. */
static void float_chunk(const struct float_job *j, const float *w, int rows, int chunk, int first, int end, float *acc)
{
    int steps = float_steps(j, chunk);
    for (int T; first < end; first += T) {
        T = at_most(j->ops->float_group, end - first);
        const float *panel = float_panel(j, chunk, first);
        for (int r = 0; r < rows; r += FLOAT_ROWS, acc += FLOAT_ROWS * T * 16)
            j->ops->multiply_float(w + (size_t)r * FLOAT_CHUNK, panel, T, steps, acc);
    }
}

static void store_sums(const struct float_job *j, int row, int rows, int first, int end, const float *acc)
{
    const struct product *p = j->p;
    for (int T; first < end; first += T) {
        T = at_most(j->ops->float_group, end - first);
        for (int r = 0; r < rows; r += FLOAT_ROWS, acc += FLOAT_ROWS * T * 16) {
            float out[FLOAT_ROWS * 16];
            j->ops->sums(acc, FLOAT_ROWS * T, out);
            for (int i = 0; i < FLOAT_ROWS && r + i < rows; i++)
                for (int t = 0; t < T; t++)
                    p->y[(size_t)(first + t) * p->ldy + (size_t)(row + r + i)] = out[i * T + t];
        }
    }
}

/* Few activation rows (one group): four rows of weights are read as they lie, all columns.  What is left of the job's
 * rows, or all of them, is returned for the way over expanded rows. */
static int float_direct(const struct float_job *j, int row, int rows, int first, int end, float *acc)
{
    const struct product *p = j->p;
    enum format_id f = p->w->t->format;
    size_t row_bytes = (size_t)format_row_bytes(f, p->w->t->cols);
    int r = 0, T = end - first;
    if (!j->ops->multiply_float_direct || T > j->ops->float_group)
        return 0;
    for (; r + FLOAT_ROWS <= rows; r += FLOAT_ROWS)
        for (int c = 0; c < j->chunks; c++) {
            int n = at_most(p->a->cols - c * FLOAT_CHUNK, FLOAT_CHUNK);
            const uint8_t *from = matrix_row(p->w, p->mat, row + r) + format_row_bytes(f, (int64_t)c * FLOAT_CHUNK);
            if (!j->ops->multiply_float_direct(f, from, row_bytes, n, float_panel(j, c, first), T,
                                               acc + (size_t)(r * T) * 16))
                return 0;
        }
    return r;
}

static void float_group(void *ctx, int i, int thread)
{
    const struct float_job *j = ctx;
    const struct product *p = j->p;
    int row = i * FLOAT_TILE_ROWS, rows = at_most((int)p->w->t->rows - row, FLOAT_TILE_ROWS);
    float w[FLOAT_TILE_ROWS * FLOAT_CHUNK] __attribute__((aligned(64)));
    float acc[FLOAT_TILE_ROWS * FLOAT_BLOCK_ROWS * 16] __attribute__((aligned(64)));
    int padded = (rows + FLOAT_ROWS - 1) / FLOAT_ROWS * FLOAT_ROWS;
    (void)thread;
    if (padded != rows)
        memset(w, 0, sizeof w);
    for (int first = 0; first < p->n; first += FLOAT_BLOCK_ROWS) {
        int end = at_most(first + FLOAT_BLOCK_ROWS, p->n);
        memset(acc, 0, (size_t)(padded * (end - first)) * 16 * sizeof *acc);
        int done = float_direct(j, row, rows, first, end, acc);
        for (int c = 0; c < j->chunks && done < rows; c++) {
            expand_rows(j, row + done, rows - done, c, w);
            float_chunk(j, w, padded - done, c, first, end, acc + (size_t)(done * (end - first)) * 16);
        }
        store_sums(j, row, rows, first, end, acc);
    }
}

void float_tiles_apply(const struct product *p)
{
    int cols = p->a->cols;
    struct float_job j = { p, p->w->k->tile, (cols + FLOAT_CHUNK - 1) / FLOAT_CHUNK, (cols + 15) / 16 * 16 };
    enum { FLOAT_KIND = -1 };
    struct acts *a = p->a;
    if (a->packed_kind != FLOAT_KIND || a->packed_n != p->n || p->row_list || p->w->t->col_perm) {
        pool_run(p->pool, (p->n + j.ops->float_group - 1) / j.ops->float_group, gather_group, &j);
        a->packed_kind = p->row_list || p->w->t->col_perm ? 0 : FLOAT_KIND;
        a->packed_n = p->n;
    }
    pool_run(p->pool, ((int)p->w->t->rows + FLOAT_TILE_ROWS - 1) / FLOAT_TILE_ROWS, float_group, &j);
}
