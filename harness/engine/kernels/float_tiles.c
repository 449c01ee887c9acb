/* float_tiles.c - products with float weights: the loops around the float tiles of tiles.h. */
#include "panel.h"

#include <string.h>

/* One part of FLOAT_BLOCK activation rows stays in L2, and with it the sums of TILES_A_JOB tiles: the panel is then read
 * from L3 once for all of them.  Few activation rows take a job's tiles one after the other: their weights are one stream. */
enum { FLOAT_BLOCK = 256, TILES_A_JOB = 4, GATHER_ROWS = 8 };

struct float_job {
    const struct product *p;
    const struct tile_ops *ops;
    int tiles_a_job, blocks;    /* blocks of activation rows */
    bool packs, direct;         /* integer weights go by the packed form; weights by multiply_direct */
};

/* What one job is at: some tiles of W and one block of activation rows. */
struct float_block {
    const struct float_job *job;
    int tile, tiles;
    int first, n;               /* activation rows */
    float *acc;                 /* [tile][n][FLOAT_ROWS] */
    float *rows, *w;            /* a part of FLOAT_ROWS rows: [row][column], decoded; [column][row], turned */
};

static float *panel_part(const struct float_job *j, int column, int row)
{
    return (float *)j->p->a->packed + ((size_t)(column / FLOAT_PART) * (size_t)j->p->n + (size_t)row) * FLOAT_PART;
}

static void gather_rows(void *ctx, int i, int thread)
{
    const struct float_job *j = ctx;
    int cols = j->p->a->cols, end = at_most((i + 1) * GATHER_ROWS, j->p->n);
    (void)thread;
    for (int row = i * GATHER_ROWS; row < end; row++)
        for (int k = 0; k < cols; k += FLOAT_PART) {
            float buffer[FLOAT_PART];
            int n = at_most(FLOAT_PART, cols - k);
            memcpy(panel_part(j, k, row), panel_row(j->p, row, k, n, buffer), (size_t)n * sizeof *buffer);
        }
}

/* FLOAT_ROWS rows of W from a column on, as a set reads them. */
struct source {
    enum format_id f;
    const uint8_t *at, *next;   /* next: what is wanted after them */
    size_t step;
};

static struct source in_place(const struct float_job *j, int row, int column, int n)
{
    const struct tensor *t = j->p->w->t;
    size_t step = (size_t)format_row_bytes(t->format, t->cols), bytes = (size_t)format_row_bytes(t->format, n);
    struct source s = { t->format, matrix_row(j->p->w, j->p->mat, row) + format_row_bytes(t->format, column), NULL, step };
    s.next = s.at;
    if (column + n < t->cols)
        s.next = s.at + bytes;
    else if (row + 2 * FLOAT_ROWS <= t->rows)
        s.next = matrix_row(j->p->w, j->p->mat, row + FLOAT_ROWS);
    return s;
}

/* Other formats decoded, missing rows of the last tile as zeros. */
static struct source decoded(const struct float_job *j, int row, int column, int n, float *out)
{
    const struct tensor *t = j->p->w->t;
    int rows = at_most(FLOAT_ROWS, (int)t->rows - row);
    for (int i = 0; i < rows; i++)
        formats[t->format].to_f32(matrix_row(j->p->w, j->p->mat, row + i) + format_row_bytes(t->format, column), out + i * n, n);
    memset(out + rows * n, 0, (size_t)((FLOAT_ROWS - rows) * n) * sizeof *out);
    return (struct source){ FORMAT_F32, (const uint8_t *)out, (const uint8_t *)out, (size_t)n * sizeof *out };
}

/* Formats whose file bytes are the packed form's; i8m's packed mins are moved to signed codes, which rounds otherwise. */
static bool packs_bytes(enum format_id f)
{
    const struct layout *l = layout_of(f);
    return l && l->raw && f != FORMAT_I8M;
}

/* Integer weights, packed and expanded; a last tile alone is taken twice. */
static void expand_integers(const struct float_block *b, int row, int chunk)
{
    const struct float_job *j = b->job;
    const struct matrix *w = j->p->w;
    uint8_t packed[LARGEST_CHUNK] __attribute__((aligned(64)));
    for (int r = 0; r < FLOAT_ROWS; r += TILE_ROWS) {
        layout_pack_chunk(w, j->p->mat, row + r < w->t->rows ? row + r : row, chunk, packed);
        j->ops->expand_packed(w->t->format, packed, layout_blocks(w->t->cols, chunk), b->w + r);
    }
}

/* One part of one tile: a packed chunk has as many columns. */
_Static_assert((int)FLOAT_PART == (int)CHUNK_COLS, "parts are chunks");
static void part_product(const struct float_block *b, int tile, int column)
{
    const struct float_job *j = b->job;
    int n = at_most(FLOAT_PART, j->p->a->cols - column), row = (b->tile + tile) * FLOAT_ROWS;
    bool plain = formats[j->p->w->t->format].block == 1 && row + FLOAT_ROWS <= j->p->w->t->rows;
    struct source s = { 0 };
    if (j->packs)
        expand_integers(b, row, column / FLOAT_PART);
    else
        s = plain ? in_place(j, row, column, n) : decoded(j, row, column, n, b->rows);
    float *acc = b->acc + (size_t)tile * (size_t)(b->n * FLOAT_ROWS);
    if (j->direct) {
        j->ops->multiply_direct(s.f, s.at, s.step, n, s.next, panel_part(j, column, b->first), b->n, column == 0, acc);
        return;
    }
    if (!j->packs)
        j->ops->expand_float(s.f, s.at, s.step, n, s.next, b->w);
    for (int g = 0, groups = groups_of(j->ops->float_group, b->n); g < groups; g++) {
        int first = group_first(b->n, groups, g), T = group_first(b->n, groups, g + 1) - first;
        j->ops->multiply_float(b->w, panel_part(j, column, b->first + first), T, n, column == 0, acc + first * FLOAT_ROWS);
    }
}

static void store_block(const struct float_block *b)
{
    const struct product *p = b->job->p;
    int row = b->tile * FLOAT_ROWS, rows = at_most(b->tiles * FLOAT_ROWS, (int)p->w->t->rows - row);
    for (int i = 0; i < b->n; i++) {
        float *y = p->y + (size_t)(b->first + i) * p->ldy + (size_t)row;
        for (int r = 0; r < rows; r += FLOAT_ROWS)
            memcpy(y + r, b->acc + ((size_t)(r / FLOAT_ROWS) * (size_t)b->n + (size_t)i) * FLOAT_ROWS,
                   (size_t)at_most(FLOAT_ROWS, rows - r) * sizeof *y);
    }
}

static void tiles_job(void *ctx, int i, int thread)
{
    const struct float_job *j = ctx;
    int n = j->p->n, tiles = ((int)j->p->w->t->rows + FLOAT_ROWS - 1) / FLOAT_ROWS, parts = (j->p->a->cols + FLOAT_PART - 1) / FLOAT_PART;
    float acc[TILES_A_JOB * FLOAT_BLOCK * FLOAT_ROWS] __attribute__((aligned(64)));
    float rows[FLOAT_ROWS * FLOAT_PART] __attribute__((aligned(64))), w[FLOAT_PART * FLOAT_ROWS] __attribute__((aligned(64)));
    struct float_block b = { .job = j, .tile = i / j->blocks * j->tiles_a_job, .first = group_first(n, j->blocks, i % j->blocks),
                             .acc = acc, .rows = rows, .w = w };
    (void)thread;
    b.tiles = at_most(j->tiles_a_job, tiles - b.tile);
    b.n = group_first(n, j->blocks, i % j->blocks + 1) - b.first;
    for (int k = 0; k < b.tiles * parts; k++)
        part_product(&b, j->direct ? k / parts : k % b.tiles, (j->direct ? k % parts : k / b.tiles) * FLOAT_PART);
    store_block(&b);
}

void float_tiles_apply(const struct product *p)
{
    enum { FLOAT_KIND = -1 };
    struct acts *a = p->a;
    int tiles = ((int)p->w->t->rows + FLOAT_ROWS - 1) / FLOAT_ROWS, per = tiles / (pool_threads(p->pool) * 8);
    struct float_job j = { .p = p, .ops = p->w->k->tile, .tiles_a_job = per < 1 ? 1 : at_most(per, TILES_A_JOB),
                           .blocks = (p->n + FLOAT_BLOCK - 1) / FLOAT_BLOCK };
    j.packs = j.ops->expand_packed && packs_bytes(p->w->t->format);
    j.direct = p->n <= j.ops->direct_group && !j.packs;
    if (a->packed_kind != FLOAT_KIND || a->packed_n != p->n || p->row_list || p->w->t->col_perm) {
        pool_run(p->pool, (p->n + GATHER_ROWS - 1) / GATHER_ROWS, gather_rows, &j);
        a->packed_kind = p->row_list || p->w->t->col_perm ? 0 : FLOAT_KIND;
        a->packed_n = p->n;
    }
    pool_run(p->pool, (tiles + j.tiles_a_job - 1) / j.tiles_a_job * j.blocks, tiles_job, &j);
}
