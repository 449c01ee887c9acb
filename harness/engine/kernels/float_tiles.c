/* float_tiles.c - products with float weights: the loops around multiply_float of tiles.h. */
#include "panel.h"

#include <assert.h>
#include <string.h>

/* A chunk of FLOAT_TILE_ROWS expanded rows stays in L1; it serves FLOAT_BLOCK_ROWS activation rows, whose chunk of the
 * panel stays in L2 for the FLOAT_JOB_ROWS of a job, with the accumulators of all of them.  Up to DIRECT_GROUPS groups of
 * activation rows are not worth expanding for. */
enum { FLOAT_TILE_ROWS = 16, FLOAT_JOB_ROWS = 32, FLOAT_BLOCK_ROWS = 192, DIRECT_GROUPS = 3 };

struct float_job {
    const struct product *p;
    const struct tile_ops *ops;
    int groups, groups_a_block;
    int chunks, padded;         /* columns padded to 16 */
};

/* What one job is at: rows of W, and some groups of activation rows. */
struct float_block {
    const struct float_job *job;
    int row, rows;              /* of W */
    int group, group_end, first, end;   /* groups and their rows */
    float *acc;                 /* [FLOAT_TILE_ROWS of rows][group][row tile][4][T][16] */
};

static int first_of(const struct float_job *j, int g)
{
    return group_first(j->p->n, j->groups, g);
}

/* [chunk][group][16 columns][T][16]: a chunk's groups lie side by side, as they are read. */
static float *float_panel(const struct float_job *j, int chunk, int g)
{
    int columns = at_most(j->padded - chunk * FLOAT_CHUNK, FLOAT_CHUNK);
    return (float *)j->p->a->packed + (size_t)chunk * FLOAT_CHUNK * (size_t)j->p->n + (size_t)(first_of(j, g) * columns);
}

static void gather_group(void *ctx, int g, int thread)
{
    const struct float_job *j = ctx;
    int first = first_of(j, g), T = first_of(j, g + 1) - first, cols = j->p->a->cols;
    (void)thread;
    for (int t = 0; t < T; t++)
        for (int c = 0; c < j->chunks; c++) {
            float buffer[FLOAT_CHUNK], *to = float_panel(j, c, g) + t * 16;
            int n = at_most(cols - c * FLOAT_CHUNK, FLOAT_CHUNK);
            const float *x = panel_row(j->p, first + t, c * FLOAT_CHUNK, n, buffer);
            for (int k = 0; k < n; k += 16, to += T * 16) {
                float step[16] = { 0 };
                memcpy(step, x + k, (size_t)at_most(16, n - k) * sizeof *step);
                memcpy(to, step, sizeof step);
            }
        }
}

/* Accumulators of row tile r (0, 4, ..) and group g. */
static float *block_acc(const struct float_block *b, int r, int g)
{
    int first = first_of(b->job, g), T = first_of(b->job, g + 1) - first, within = r % FLOAT_TILE_ROWS;
    return b->acc + (size_t)((r - within) * (b->end - b->first) + (first - b->first) * FLOAT_TILE_ROWS + within * T) * 16;
}

static const uint8_t *row_chunk(const struct float_job *j, int row, int chunk)
{
    return matrix_row(j->p->w, j->p->mat, row) + format_row_bytes(j->p->w->t->format, (int64_t)chunk * FLOAT_CHUNK);
}

/* Rows from r on to the next multiple of FLOAT_TILE_ROWS; w [row tile][16 columns][4][16]. */
static void expanded_chunk(const struct float_block *b, int r, int chunk, float *w)
{
    const struct float_job *j = b->job;
    int n = at_most(j->p->a->cols - chunk * FLOAT_CHUNK, FLOAT_CHUNK), steps = (n + 15) / 16;
    int base = r - r % FLOAT_TILE_ROWS, end = at_most(b->rows, base + FLOAT_TILE_ROWS);
    for (int i = r; i < end; i++)
        j->ops->expand_float(j->p->w->t->format, row_chunk(j, b->row + i, chunk), n,
                             w + (size_t)((i - base) / FLOAT_ROWS) * FLOAT_ROWS * FLOAT_CHUNK + i % FLOAT_ROWS * 16);
    for (int g = b->group; g < b->group_end; g++) {
        int T = first_of(j, g + 1) - first_of(j, g);
        const float *panel = float_panel(j, chunk, g);
        float *acc = block_acc(b, r, g);
        for (int i = r; i < end; i += FLOAT_ROWS, acc += FLOAT_ROWS * 16 * T)
            j->ops->multiply_float(w + (size_t)(i - base) * FLOAT_CHUNK, panel, T, steps, chunk == 0, acc);
    }
}

/* Few activation rows: four rows of weights are read as they lie.  Returns the rows done, 0 where there is no such way. */
static int direct_rows(const struct float_block *b)
{
    const struct float_job *j = b->job;
    enum format_id f = j->p->w->t->format;
    size_t row_bytes = (size_t)format_row_bytes(f, j->p->w->t->cols);
    int r = 0;
    if (!j->ops->multiply_float_direct || j->groups > DIRECT_GROUPS)
        return 0;
    for (; r + FLOAT_ROWS <= b->rows; r += FLOAT_ROWS)
        for (int c = 0; c < j->chunks; c++)
            for (int g = 0; g < j->groups; g++) {
                int n = at_most(j->p->a->cols - c * FLOAT_CHUNK, FLOAT_CHUNK), T = first_of(j, g + 1) - first_of(j, g);
                if (j->ops->multiply_float_direct(f, row_chunk(j, b->row + r, c), row_bytes, n, float_panel(j, c, g), T,
                                                  c == 0, block_acc(b, r, g)))
                    continue;
                assert(!r && !c && !g);
                return 0;
            }
    return r;
}

static void store_sums(const struct float_block *b)
{
    const struct product *p = b->job->p;
    for (int g = b->group; g < b->group_end; g++) {
        int first = first_of(b->job, g), T = first_of(b->job, g + 1) - first;
        for (int r = 0; r < b->rows; r += FLOAT_TILE_ROWS) {
            const float *acc = block_acc(b, r, g);
            float *y = p->y + (size_t)first * p->ldy + (size_t)(b->row + r);
            for (int t = 0; t < T; t++, acc += 16, y += p->ldy)
                b->job->ops->sums(acc, (size_t)(16 * T), at_most(b->rows - r, FLOAT_TILE_ROWS), y);
        }
    }
}

static void float_rows(void *ctx, int i, int thread)
{
    const struct float_job *j = ctx;
    float w[FLOAT_TILE_ROWS * FLOAT_CHUNK] __attribute__((aligned(64)));
    float acc[FLOAT_JOB_ROWS * FLOAT_BLOCK_ROWS * 16] __attribute__((aligned(64)));
    struct float_block b = { .job = j, .row = i * FLOAT_JOB_ROWS, .acc = acc };
    (void)thread;
    b.rows = at_most((int)j->p->w->t->rows - b.row, FLOAT_JOB_ROWS);
    if (b.rows % FLOAT_ROWS)
        memset(w, 0, sizeof w);
    for (; b.group < j->groups; b.group = b.group_end) {
        b.group_end = at_most(b.group + j->groups_a_block, j->groups);
        b.first = first_of(j, b.group);
        b.end = first_of(j, b.group_end);
        int done = direct_rows(&b);
        for (int c = 0; c < j->chunks; c++)
            for (int r = done; r < b.rows; r = (r / FLOAT_TILE_ROWS + 1) * FLOAT_TILE_ROWS)
                expanded_chunk(&b, r, c, w);
        store_sums(&b);
    }
}

void float_tiles_apply(const struct product *p)
{
    int cols = p->a->cols;
    struct float_job j = { .p = p, .ops = p->w->k->tile, .chunks = (cols + FLOAT_CHUNK - 1) / FLOAT_CHUNK,
                           .padded = (cols + 15) / 16 * 16 };
    enum { FLOAT_KIND = -1 };
    struct acts *a = p->a;
    j.groups = groups_of(j.ops->float_group, p->n);
    int blocks = (j.groups * j.ops->float_group + FLOAT_BLOCK_ROWS - 1) / FLOAT_BLOCK_ROWS;
    j.groups_a_block = (j.groups + blocks - 1) / blocks;
    if (a->packed_kind != FLOAT_KIND || a->packed_n != p->n || p->row_list || p->w->t->col_perm) {
        pool_run(p->pool, j.groups, gather_group, &j);
        a->packed_kind = p->row_list || p->w->t->col_perm ? 0 : FLOAT_KIND;
        a->packed_n = p->n;
    }
    pool_run(p->pool, ((int)p->w->t->rows + FLOAT_JOB_ROWS - 1) / FLOAT_JOB_ROWS, float_rows, &j);
}
