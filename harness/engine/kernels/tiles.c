/* tiles.c - the loops around the integer tiles of tiles.h: packing, tiles of a job over the pool. */
#include "panel.h"

#include <assert.h>
#include <string.h>

/* ---- packing ---- */

/* Two tiles that are multiplied together lie together: [pair][chunk][tile of the pair]. */
struct packing {
    const struct matrix *w;
    int tiles, chunks;          /* of one matrix; of a row */
    size_t tile_bytes, chunk_bytes, last_bytes;     /* last: of a row's last chunk */
};

static struct packing packing_of(const struct matrix *w)
{
    enum format_id f = w->t->format;
    int chunks = (int)((w->t->cols + CHUNK_COLS - 1) / CHUNK_COLS);
    return (struct packing){ w, (int)((w->t->rows + TILE_ROWS - 1) / TILE_ROWS), chunks, layout_tile_bytes(f, w->t->cols),
                             layout_chunk_bytes(f, CHUNK_BLOCKS), layout_chunk_bytes(f, layout_blocks(w->t->cols, chunks - 1)) };
}

static size_t bytes_of_chunk(const struct packing *k, int chunk)
{
    return chunk + 1 < k->chunks ? k->chunk_bytes : k->last_bytes;
}

static uint8_t *chunk_at(const struct packing *k, int mat, int tile, int chunk)
{
    size_t width = tile % 2 || tile + 1 < k->tiles ? 2 : 1, own = tile % 2 ? bytes_of_chunk(k, chunk) : 0;
    return (uint8_t *)k->w->packed + (size_t)(mat * k->tiles + tile / 2 * 2) * k->tile_bytes + (size_t)chunk * width * k->chunk_bytes + own;
}

static void pack_tile(void *ctx, int i, int thread)
{
    const struct packing *k = ctx;
    int mat = i / k->tiles, tile = i % k->tiles;
    (void)thread;
    for (int c = 0; c * CHUNK_COLS < k->w->t->cols; c++)
        layout_pack_chunk(k->w, mat, tile * TILE_ROWS, c, chunk_at(k, mat, tile, c));
}

bool tiles_pack(struct matrix *w, struct pool *pool, struct error *err)
{
    const struct tensor *t = w->t;
    if (rounding_of(w->mode, t->format) == ROUND_NONE)
        return true;            /* float products read the rows as they are */
    struct packing k = packing_of(w);
    int tiles = k.tiles * (int)t->mats;
    w->packed_bytes = (size_t)tiles * k.tile_bytes;
    w->packed = kernels_large_pages(w->packed_bytes, err);
    if (!w->packed)
        return false;
    pool_run(pool, tiles, pack_tile, &k);
    return true;
}

/* ---- integer products ---- */

struct integer_job {
    struct panel panel;
    struct packing packing;
    int blocks;                         /* 32-blocks of a row */
    int tiles_a_job;
    int groups_a_block;                 /* by chunks: groups of activation rows that are multiplied in turn */
    int chunks_a_stripe, stripes;       /* by stripes: how many of these a row has */
    int row_parts;                      /* jobs that share tiles, each with its part of the groups */
    bool pairs_outside;                 /* a pair's stripes follow each other; else all pairs of a stripe */
};

static const uint8_t *packed_chunk(const struct integer_job *j, int tile, int chunk, uint8_t *buffer)
{
    const struct product *p = j->panel.p;
    if (p->w->packed)
        return chunk_at(&j->packing, p->mat, tile, chunk);
    layout_pack_chunk(p->w, p->mat, tile * TILE_ROWS, chunk, buffer);
    return buffer;
}

/* ---- by stripes, for sets with multiply_stripe ---- */

/* What a stripe needs beside packed weights, or in their place. */
enum { ROOM_BYTES = 128 * 1024 };

/* How far few rows of activations read ahead in their stream of weights: more where scales, which lie at the end of a chunk,
 * are waited for. */
static ptrdiff_t few_ahead(const struct panel *a)
{
    enum { AHEAD = 6 * 1024 };
    return a->layout->scales == SCALES_F16 ? AHEAD : 2 * AHEAD;
}

struct room {
    uint8_t *at;
};

static void *room_take(struct room *m, size_t bytes)
{
    void *p = m->at;
    m->at += (bytes + 63) / 64 * 64;
    return p;
}

/* f16 scales need only be converted; Q6_K's are made on the way where the weights are read once. */
static bool scales_in_place(const struct panel *a)
{
    return (a->layout->scales == SCALES_F16 && !a->has_min) || (a->layout->plane == PLANE_6K && a->groups == 1);
}

/* A last tile alone is taken twice: both are the same, and so are their sums. */
static struct stripe stripe_open(const struct integer_job *j, int tile, int tiles, int chunk, struct room *m)
{
    const struct panel *a = &j->panel;
    struct stripe s = { .blocks = at_most(j->blocks - chunk * CHUNK_BLOCKS, j->chunks_a_stripe * CHUNK_BLOCKS) };
    size_t scales = sizeof *s.scale * (size_t)(s.blocks * a->subs);
    s.scale = scales_in_place(a) ? NULL : room_take(m, scales);
    s.min = a->has_min ? room_take(m, scales) : NULL;
    if (a->layout->plane == PLANE_6K && a->groups > 1)
        s.expanded = room_take(m, (size_t)s.blocks * 2 * 32 * TILE_ROWS);
    const uint8_t *packed = j->packing.w->packed ? chunk_at(&j->packing, a->p->mat, tile, chunk) : NULL;
    for (int c = 0; c * CHUNK_BLOCKS < s.blocks; c++, packed += packed ? tiles * (ptrdiff_t)j->packing.chunk_bytes : 0)
        for (int r = 0; r < 2; r++)
            s.chunk[c][r] = r >= tiles ? s.chunk[c][0]
                            : packed   ? packed + (r ? bytes_of_chunk(&j->packing, chunk + c) : 0)
                                       : packed_chunk(j, tile + r, chunk + c, room_take(m, j->packing.chunk_bytes));
    a->ops->begin_stripe(a->p->w->t->format, &s);
    return s;
}

/* The last rows of W that are no whole tile: through a buffer. */
static void multiply_edge(const struct integer_job *j, const struct stripe *s, int tile, int tiles, int block, int first, int T)
{
    const struct panel *a = &j->panel;
    float part[16][2][TILE_ROWS], *y = a->p->y + (size_t)first * a->p->ldy + (size_t)tile * TILE_ROWS;
    size_t bytes = (size_t)(a->p->w->t->rows - tile * TILE_ROWS) * sizeof *y;
    struct sums sums = { block ? part[0][0] : NULL, part[0][0], 2 * TILE_ROWS, tiles < 2 ? 0 : TILE_ROWS };
    assert(T <= 16);
    for (int t = 0; t < T && block; t++)
        memcpy(part[t], y + (size_t)t * a->p->ldy, bytes);
    a->ops->multiply_stripe(a->p->w->t->format, s, a->wide, panel_at(a, first, T, block), T, NULL, &sums);
    for (int t = 0; t < T; t++)
        memcpy(y + (size_t)t * a->p->ldy, part[t], bytes);
}

/* One group of activation rows; between stripes the sums wait in y. */
static void multiply_group(const struct integer_job *j, const struct stripe *s, int tile, int tiles, int chunk, int g,
                           const uint8_t *ahead)
{
    const struct panel *a = &j->panel;
    int first = group_first(a->p->n, a->groups, g), end = group_first(a->p->n, a->groups, g + 1), block = chunk * CHUNK_BLOCKS;
    for (int T; first < end; first += T) {
        T = width_of(a->ops->widths, end - first);
        if ((tile + tiles) * TILE_ROWS > a->p->w->t->rows) {
            multiply_edge(j, s, tile, tiles, block, first, T);
            continue;
        }
        float *y = a->p->y + (size_t)first * a->p->ldy + (size_t)tile * TILE_ROWS;
        struct sums sums = { block ? y : NULL, y, a->p->ldy, tiles < 2 ? 0 : TILE_ROWS };
        a->ops->multiply_stripe(a->p->w->t->format, s, a->wide, panel_at(a, first, T, block), T, ahead, &sums);
    }
}

/* What a job is at: one stripe of one pair of tiles. */
struct passage {
    int tile, tiles, chunk;             /* first tile, 1 or 2 of them; first chunk of the stripe */
};

/* Step k of job i: a panel that stays in L2 meets whole pairs, and the weights are one stream; else stripe after stripe,
 * so that a stripe of the panel is read from L2 for all pairs. */
static bool passage_at(const struct integer_job *j, int i, int k, struct passage *s)
{
    int first = i / j->row_parts * j->tiles_a_job, end = at_most(first + j->tiles_a_job, j->packing.tiles), pairs = (end - first + 1) / 2;
    if (first >= end || k >= pairs * j->stripes)
        return false;
    int pair = j->pairs_outside ? k / j->stripes : k % pairs, stripe = j->pairs_outside ? k % j->stripes : k / pairs;
    *s = (struct passage){ first + 2 * pair, at_most(2, end - first - 2 * pair), stripe * j->chunks_a_stripe };
    return true;
}

/* The weights wanted next are read ahead bit by bit beside the groups. */
static void multiply_pair(const struct integer_job *j, const struct passage *s, const uint8_t *next, int group, int end)
{
    uint8_t memory[ROOM_BYTES] __attribute__((aligned(64)));
    struct room m = { memory };
    struct stripe w = stripe_open(j, s->tile, s->tiles, s->chunk, &m);
    size_t block_bytes = 2 * j->packing.chunk_bytes / CHUNK_BLOCKS, at = 0;
    w.next_step = (block_bytes / (size_t)(end - group) + 63) / 64 * 64;
    for (int g = group; g < end; g++, at += w.next_step) {
        const uint8_t *ahead = next && at < block_bytes ? next + at * (size_t)w.blocks : NULL;
        multiply_group(j, &w, s->tile, s->tiles, s->chunk, g, j->panel.groups == 1 ? w.chunk[0][0] + few_ahead(&j->panel) : ahead);
    }
}

/* After its last step this thread will probably take the next job. */
static void stripe_job(void *ctx, int i, int thread)
{
    const struct integer_job *j = ctx;
    int groups = j->panel.groups, part = i % j->row_parts;
    int group = group_first(groups, j->row_parts, part), end = group_first(groups, j->row_parts, part + 1);
    struct passage s, next;
    (void)thread;
    bool more = passage_at(j, i, 0, &s);
    for (int k = 1; more; k++, s = next) {
        more = passage_at(j, i, k, &next);
        bool known = j->packing.w->packed && groups > 1 && (more || passage_at(j, i + 1, 0, &next));
        multiply_pair(j, &s, known ? chunk_at(&j->packing, j->panel.p->mat, next.tile, next.chunk) : NULL, group, end);
    }
}

/* ---- by chunks, for sets with expand and multiply ---- */

/* Accumulators of a job stay in L2 beside a chunk of BLOCK_ROWS activation rows: at most ACC_FLOATS of them. */
enum { ACC_FLOATS = 48 * 1024, BLOCK_ROWS = 258, FEW_BYTES = 384 * 1024, LARGEST_CHUNK = CHUNK_COLS * TILE_ROWS + 2 * 16 * TILE_ROWS * 4 };

/* What one job is at: tiles of weights, and some groups of activation rows. */
struct block {
    const struct integer_job *job;
    int from, to;               /* tiles */
    int group, group_end;
    int first, end;             /* rows of those groups */
    float *acc;                 /* [tiles][end - first][16] */
};

static size_t tile_floats(const struct block *b)
{
    return (size_t)(b->end - b->first) * TILE_ROWS;
}

/* One or two tiles, one chunk. */
static void chunk_product(const struct block *b, int tile, int chunk)
{
    const struct panel *a = &b->job->panel;
    enum format_id f = a->p->w->t->format;
    int block = chunk * CHUNK_BLOCKS, blocks = at_most(b->job->blocks - block, CHUNK_BLOCKS), tiles = at_most(b->to - tile, 2);
    uint8_t buffer[LARGEST_CHUNK] __attribute__((aligned(64)));
    struct expanded w[2] __attribute__((aligned(64)));
    float *acc = b->acc + (size_t)(tile - b->from) * tile_floats(b);
    for (int i = 0; i < tiles; i++)
        a->ops->expand(f, packed_chunk(b->job, tile + i, chunk, buffer), blocks, a->wide, &w[i]);
    for (int g = b->group; g < b->group_end; g++) {
        int first = group_first(a->p->n, a->groups, g), end = group_first(a->p->n, a->groups, g + 1);
        for (int T; first < end; first += T, acc += T * TILE_ROWS) {
            T = width_of(a->ops->widths, end - first);
            a->ops->multiply(w, tiles, a->wide, a->sub, a->has_min, panel_at(a, first, T, block), T, blocks, acc, tile_floats(b));
        }
    }
}

/* Activations that stay in L2: tile by tile, so that the weights are one stream.  Others: chunk by chunk, so that
 * a chunk's are read from L2 for all tiles of the job. */
static void multiply_block(const struct block *b)
{
    const struct panel *a = &b->job->panel;
    bool few = (size_t)(b->end - b->first) * (size_t)b->job->blocks * a->unit <= FEW_BYTES;
    int chunks = (b->job->blocks + CHUNK_BLOCKS - 1) / CHUNK_BLOCKS, pairs = (b->to - b->from + 1) / 2;
    for (int i = 0; i < chunks * pairs; i++)
        chunk_product(b, b->from + 2 * (few ? i / chunks : i % pairs), few ? i % chunks : i / pairs);
}

/* Row by row: what lies side by side in y is written together. */
static void store_block(const struct block *b)
{
    const struct product *p = b->job->panel.p;
    for (int i = b->first; i < b->end; i++)
        for (int tile = b->from; tile < b->to; tile++) {
            const float *acc = b->acc + (size_t)(tile - b->from) * tile_floats(b) + (size_t)(i - b->first) * TILE_ROWS;
            int n = at_most(TILE_ROWS, (int)p->w->t->rows - tile * TILE_ROWS);
            memcpy(p->y + (size_t)i * p->ldy + (size_t)tile * TILE_ROWS, acc, (size_t)n * sizeof *acc);
        }
}

static void chunk_job(void *ctx, int i, int thread)
{
    const struct integer_job *j = ctx;
    const struct panel *a = &j->panel;
    float acc[ACC_FLOATS] __attribute__((aligned(64)));
    struct block b = { .job = j, .from = i * j->tiles_a_job, .acc = acc };
    (void)thread;
    b.to = at_most(b.from + j->tiles_a_job, j->packing.tiles);
    for (; b.group < a->groups; b.group = b.group_end) {
        b.group_end = at_most(b.group + j->groups_a_block, a->groups);
        b.first = group_first(a->p->n, a->groups, b.group);
        b.end = group_first(a->p->n, a->groups, b.group_end);
        memset(acc, 0, (size_t)(b.to - b.from) * tile_floats(&b) * sizeof *acc);
        multiply_block(&b);
        store_block(&b);
    }
}

/* ---- both ---- */

/* Tiles a job, an even number: enough jobs that threads finish together, few enough for what each keeps. */
static int share(int tiles, int threads, int most)
{
    int per = tiles / (threads * 8);
    return per < 2 ? 2 : at_most(per, most) / 2 * 2;
}

/* Chunks of a stripe: its weights and a group's part of the panel share L1.  A short row is one stripe, since the sums
 * then never wait in y; formats that need room for scales or codes get fewer. */
static int stripe_chunks(const struct integer_job *j)
{
    enum { PANEL_BYTES = 13 * 1024, SHORT_ROW = 24 * 1024 };
    const struct panel *a = &j->panel;
    int T = at_most(a->ops->group, a->p->n), chunks = (j->blocks + CHUNK_BLOCKS - 1) / CHUNK_BLOCKS;
    size_t chunk = (size_t)T * a->unit * CHUNK_BLOCKS;
    if (a->groups == 1)
        return scales_in_place(a) ? STRIPE_CHUNKS : 1;
    if (a->layout->plane == PLANE_8 || a->layout->plane == PLANE_6K)
        return 2;
    if (chunks <= STRIPE_CHUNKS && (size_t)chunks * chunk <= SHORT_ROW)
        return chunks;
    return at_most((int)(PANEL_BYTES / chunk), STRIPE_CHUNKS);
}

/* A panel, or a stripe of it, that stays in L2 is read from there for one pair of tiles after another; larger ones are
 * cut by rows, unless that packed weights anew for each part. */
static void plan_stripes(struct integer_job *j)
{
    enum { L2_BYTES = 640 * 1024 };
    const struct panel *a = &j->panel;
    size_t row = (size_t)a->p->n * a->unit;
    j->chunks_a_stripe = stripe_chunks(j);
    j->stripes = (j->blocks + j->chunks_a_stripe * CHUNK_BLOCKS - 1) / (j->chunks_a_stripe * CHUNK_BLOCKS);
    j->pairs_outside = row * (size_t)j->blocks <= L2_BYTES;
    if (!j->pairs_outside && j->packing.w->packed)
        j->row_parts = at_most((int)(row * (size_t)at_most(j->blocks, j->chunks_a_stripe * CHUNK_BLOCKS) / L2_BYTES) + 1, a->groups);
    j->tiles_a_job = share(j->packing.tiles * j->row_parts, pool_threads(a->p->pool), j->packing.tiles + 1);
}

static int plan_chunks(struct integer_job *j)
{
    int blocks = (j->panel.p->n + BLOCK_ROWS - 1) / BLOCK_ROWS;
    j->groups_a_block = (j->panel.groups + blocks - 1) / blocks;
    return ACC_FLOATS / (TILE_ROWS * j->groups_a_block * j->panel.ops->group);
}

static void integer_apply(const struct product *p)
{
    struct integer_job j = { .panel = panel_of(p), .packing = packing_of(p->w), .blocks = p->a->cols / 32, .row_parts = 1 };
    bool stripes = j.panel.ops->multiply_stripe != NULL;
    if (stripes)
        plan_stripes(&j);
    else
        j.tiles_a_job = share(j.packing.tiles, pool_threads(p->pool), plan_chunks(&j));
    pool_run(p->pool, (j.packing.tiles + j.tiles_a_job - 1) / j.tiles_a_job * j.row_parts, stripes ? stripe_job : chunk_job, &j);
}

void tiles_apply(const struct product *p)
{
    (p->rounding == ROUND_NONE ? float_tiles_apply : integer_apply)(p);
}
