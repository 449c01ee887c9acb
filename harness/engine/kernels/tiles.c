/* tiles.c - the loops around the tiles of tiles.h: packing, activation panels, row groups over the pool. */
#include "tiles.h"

#include <assert.h>
#include <string.h>

/* Accumulators of a job stay in L2 beside the activation chunk: at most ACC_FLOATS of them. */
enum { ACC_FLOATS = 48 * 1024, BLOCK_ROWS = 384, FLOAT_BLOCK_ROWS = 96, FLOAT_TILE_ROWS = 32, FEW_ROWS = 24,
       DIRECT_ROWS = 4 };

static int at_most(int a, int b)
{
    return a < b ? a : b;
}

/* ---- packing ---- */

struct pack_job {
    struct matrix *w;
    int tiles;          /* of one matrix */
    size_t tile_bytes;
};

static void pack_tile(void *ctx, int i, int thread)
{
    const struct pack_job *job = ctx;
    const struct matrix *w = job->w;
    uint8_t *out = (uint8_t *)w->packed + (size_t)i * job->tile_bytes;
    (void)thread;
    for (int c = 0; c * CHUNK_COLS < w->t->cols; c++) {
        layout_pack_chunk(w, i / job->tiles, i % job->tiles * TILE_ROWS, c, out);
        out += layout_chunk_bytes(w->t->format, layout_blocks(w->t->cols, c));
    }
}

bool tiles_pack(struct matrix *w, struct pool *pool, struct error *err)
{
    const struct tensor *t = w->t;
    if (rounding_of(w->mode, t->format) == ROUND_NONE)
        return true;            /* float products read the rows as they are */
    struct pack_job job = { w, (int)((t->rows + TILE_ROWS - 1) / TILE_ROWS), layout_tile_bytes(t->format, t->cols) };
    int tiles = job.tiles * (int)t->mats;
    w->packed_bytes = (size_t)tiles * job.tile_bytes;
    w->packed = kernels_large_pages(w->packed_bytes, err);
    if (!w->packed)
        return false;
    pool_run(pool, tiles, pack_tile, &job);
    return true;
}

/* ---- groups: activation rows are taken so many at once as there are kernels for ---- */

static int width_of(const int *widths, int left)
{
    while (*widths > left)
        widths++;
    return *widths;
}

struct panel {
    const struct product *p;
    const struct tile_ops *ops;
    const struct layout *layout;
    int sub, subs;
    bool wide, has_min;
    size_t unit;
};

static struct panel panel_of(const struct product *p)
{
    const struct format *f = &formats[p->w->t->format];
    struct panel a = { .p = p, .ops = p->w->k->tile, .layout = layout_of(p->w->t->format), .sub = f->int_block,
                       .has_min = f->has_min };
    a.wide = p->rounding == ROUND_I16 || !a.ops->narrow;
    a.subs = 32 / a.sub;
    a.unit = panel_unit(a.wide, a.sub);
    return a;
}

/* Where row i of the panel's group starting at row first lies, for a chunk. */
static uint8_t *panel_chunk(const struct panel *a, int chunk, int blocks, int first)
{
    size_t before = (size_t)chunk * CHUNK_BLOCKS * (size_t)a->p->n + (size_t)first * (size_t)blocks;
    return (uint8_t *)a->p->a->packed + before * a->unit;
}

/* Element order of the words: wide swaps the middle two of each four. */
static void put_block(const struct panel *a, const int16_t *codes, float scale, uint8_t *block, int T, int t)
{
    uint8_t *to = block + (size_t)t * (a->wide ? 64 : 32);
    if (a->wide) {
        int16_t words[32];
        for (int i = 0; i < 32; i += 4) {
            words[i] = codes[i];
            words[i + 1] = codes[i + 2];
            words[i + 2] = codes[i + 1];
            words[i + 3] = codes[i + 3];
        }
        memcpy(to, words, 64);
    } else {
        int8_t bytes[32];
        for (int i = 0; i < 32; i++)
            bytes[i] = (int8_t)codes[i];
        memcpy(to, bytes, 32);
    }
    uint8_t *scales = block + (size_t)T * (a->wide ? 64 : 32), *starts = scales + (size_t)T * 4;
    uint8_t *sums = starts + (size_t)(T * a->subs) * 4;
    memcpy(scales + 4 * t, &scale, 4);
    for (int s = 0; s < a->subs; s++) {
        int32_t sum = 0, start;
        for (int i = 0; i < a->sub; i++)
            sum += codes[s * a->sub + i];
        start = -a->layout->bias * sum;
        float fsum = (float)sum;
        memcpy(starts + (size_t)(t * a->subs + s) * 4, &start, 4);
        memcpy(sums + (size_t)(t * a->subs + s) * 4, &fsum, 4);
    }
}

/* n columns from k0 on in stored order. */
static const float *row_part(const struct product *p, int i, int k0, int n, float *buffer)
{
    const float *x = p->a->f32 + (size_t)acts_row(p, i) * p->a->ld;
    const int32_t *perm = p->w->t->col_perm;
    if (!perm)
        return x + k0;
    for (int k = 0; k < n; k++)
        buffer[k] = x[perm[k0 + k]];
    return buffer;
}

/* Job i rounds the rows of one group (of the widest kernel; its tail is several narrower groups). */
static void round_group(void *ctx, int job, int thread)
{
    const struct panel *a = ctx;
    int first = job * a->ops->group, end = at_most(first + a->ops->group, a->p->n);
    (void)thread;
    for (int T; first < end; first += T) {
        T = width_of(a->ops->widths, end - first);
        for (int t = 0; t < T; t++)
            for (int c = 0; c * CHUNK_COLS < a->p->a->cols; c++) {
                int blocks = layout_blocks(a->p->a->cols, c);
                float buffer[CHUNK_COLS], scale[CHUNK_BLOCKS];
                int16_t codes[CHUNK_COLS];
                const float *x = row_part(a->p, first + t, c * CHUNK_COLS, blocks * 32, buffer);
                a->ops->round(a->p->rounding, x, blocks * 32, codes, scale);
                uint8_t *to = panel_chunk(a, c, blocks, first);
                for (int b = 0; b < blocks; b++)
                    put_block(a, codes + 32 * b, scale[b], to + (size_t)b * (size_t)T * a->unit, T, t);
            }
    }
}

/* ---- integer products ---- */

struct integer_job {
    struct panel panel;
    int tiles, tiles_a_job;
    size_t tile_bytes;
};

static const uint8_t *packed_chunk(const struct integer_job *j, int tile, int chunk, uint8_t *buffer)
{
    const struct matrix *w = j->panel.p->w;
    int mat = j->panel.p->mat;
    if (!w->packed) {
        layout_pack_chunk(w, mat, tile * TILE_ROWS, chunk, buffer);
        return buffer;
    }
    return (const uint8_t *)w->packed + (size_t)(mat * j->tiles + tile) * j->tile_bytes +
           (size_t)chunk * layout_chunk_bytes(w->t->format, CHUNK_BLOCKS);
}

/* One or two tiles, one chunk, activation rows first .. end - 1; accumulators acc [tiles][end - first][16]. */
static void multiply_chunk(const struct integer_job *j, int tile, int tiles, int chunk, int first, int end, float *acc)
{
    const struct panel *a = &j->panel;
    enum format_id f = a->p->w->t->format;
    int blocks = layout_blocks(a->p->a->cols, chunk), n = end - first;
    size_t step = (size_t)n * 16;
    uint8_t buffer[16 * 1024] __attribute__((aligned(64)));
    struct expanded w[2] __attribute__((aligned(64)));
    assert(layout_chunk_bytes(f, blocks) <= sizeof buffer);
    for (int i = 0; i < tiles; i++) {
        const uint8_t *packed = packed_chunk(j, tile + i, chunk, buffer);
        if (a->ops->multiply_direct && width_of(a->ops->widths, n) == n &&
            a->ops->multiply_direct(f, packed, a->wide, panel_chunk(a, chunk, blocks, first), n, blocks,
                                    acc + (size_t)i * step)) {
            if (i == tiles - 1)
                return;
            continue;
        }
        a->ops->expand(f, packed, blocks, a->wide, &w[i]);
    }
    for (int T; first < end; first += T, acc += T * 16) {
        T = width_of(a->ops->widths, end - first);
        a->ops->multiply(w, tiles, a->wide, a->sub, a->has_min, panel_chunk(a, chunk, blocks, first), T, blocks, acc, step);
    }
}

static void store_tile(const struct product *p, int tile, int first, int end, const float *acc)
{
    int row = tile * TILE_ROWS, n = at_most(TILE_ROWS, (int)p->w->t->rows - row);
    for (int i = first; i < end; i++, acc += TILE_ROWS)
        if (n == TILE_ROWS)
            memcpy(p->y + (size_t)i * p->ldy + row, acc, TILE_ROWS * sizeof *acc);
        else
            memcpy(p->y + (size_t)i * p->ldy + row, acc, (size_t)n * sizeof *acc);
}

/* Many activation rows: chunk by chunk, so that their codes are read from L2 for all tiles of the job.  Few: tile
 * by tile, so that the weights are one stream. */
static void integer_block(const struct integer_job *j, int from, int to, int first, int end, float *acc)
{
    int chunks = (j->panel.p->a->cols + CHUNK_COLS - 1) / CHUNK_COLS, n = end - first;
    int width = n <= DIRECT_ROWS ? 1 : 2, steps = (to - from + width - 1) / width;
    for (int i = 0; i < chunks * steps; i++) {
        int chunk = n <= FEW_ROWS ? i % chunks : i / steps, step = n <= FEW_ROWS ? i / chunks : i % steps;
        int tile = from + width * step;
        multiply_chunk(j, tile, at_most(width, to - tile), chunk, first, end, acc + width * step * n * 16);
    }
}

static void integer_group(void *ctx, int i, int thread)
{
    const struct integer_job *j = ctx;
    const struct product *p = j->panel.p;
    int from = i * j->tiles_a_job, to = at_most(from + j->tiles_a_job, j->tiles);
    float acc[ACC_FLOATS] __attribute__((aligned(64)));
    (void)thread;
    for (int first = 0; first < p->n; first += BLOCK_ROWS) {
        int end = at_most(first + BLOCK_ROWS, p->n), floats = (end - first) * 16;
        memset(acc, 0, (size_t)(to - from) * (size_t)floats * sizeof *acc);
        integer_block(j, from, to, first, end, acc);
        for (int tile = from; tile < to; tile++)
            store_tile(p, tile, first, end, acc + (tile - from) * floats);
    }
}

/* Tiles a job: enough jobs that threads finish together, few enough that the accumulators fit. */
static int share(int tiles, int threads, int most)
{
    int per = tiles / (threads * 8);
    return per < 1 ? 1 : at_most(per, most);
}

static void integer_apply(const struct product *p)
{
    struct integer_job j = { .panel = panel_of(p) };
    int kind = (int)p->rounding << 16 | j.panel.layout->bias << 8 | j.panel.sub, rows = at_most(p->n, BLOCK_ROWS);
    struct acts *a = p->a;
    /* A panel serves every matrix with the same rounding, bias and sub-block. */
    if (a->packed_kind != kind || a->packed_n != p->n || p->row_list || p->w->t->col_perm) {
        pool_run(p->pool, (p->n + j.panel.ops->group - 1) / j.panel.ops->group, round_group, &j.panel);
        a->packed_kind = p->row_list || p->w->t->col_perm ? 0 : kind;
        a->packed_n = p->n;
    }
    j.tiles = (int)((p->w->t->rows + TILE_ROWS - 1) / TILE_ROWS);
    j.tile_bytes = layout_tile_bytes(p->w->t->format, p->w->t->cols);
    j.tiles_a_job = share(j.tiles, pool_threads(p->pool), ACC_FLOATS / (16 * rows));
    pool_run(p->pool, (j.tiles + j.tiles_a_job - 1) / j.tiles_a_job, integer_group, &j);
}

/* ---- float products ---- */

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
            const float *x = row_part(j->p, first + t, c * FLOAT_CHUNK, n, buffer);
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

static void float_apply(const struct product *p)
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

void tiles_apply(const struct product *p)
{
    (p->rounding == ROUND_NONE ? float_apply : integer_apply)(p);
}
