/* tiles.c - the loops around the integer tiles of tiles.h: packing, tiles of a job over the pool. */
#include "panel.h"

#include <assert.h>
#include <string.h>

/* ---- packing ---- */

/* Two tiles that are multiplied together lie together: [pair][chunk][tile of the pair]. */
struct packing {
    const struct matrix *w;
    int tiles;                  /* of one matrix */
    size_t tile_bytes, chunk_bytes;
};

static struct packing packing_of(const struct matrix *w)
{
    enum format_id f = w->t->format;
    return (struct packing){ w, (int)((w->t->rows + TILE_ROWS - 1) / TILE_ROWS), layout_tile_bytes(f, w->t->cols),
                             layout_chunk_bytes(f, CHUNK_BLOCKS) };
}

static uint8_t *chunk_at(const struct packing *k, int mat, int tile, int chunk)
{
    size_t width = tile % 2 || tile + 1 < k->tiles ? 2 : 1, own = tile % 2 ? k->chunk_bytes : 0;
    int blocks = layout_blocks(k->w->t->cols, chunk);
    if (own && blocks < CHUNK_BLOCKS)
        own = layout_chunk_bytes(k->w->t->format, blocks);
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
    int chunks_a_stripe;
    bool rows_outside;                  /* by stripes: all of a job's weights for one group after another */
};

static const uint8_t *packed_chunk(const struct integer_job *j, int tile, int chunk, uint8_t *buffer)
{
    const struct product *p = j->panel.p;
    if (p->w->packed)
        return chunk_at(&j->packing, p->mat, tile, chunk);
    layout_pack_chunk(p->w, p->mat, tile * TILE_ROWS, chunk, buffer);
    return buffer;
}

static int tiles_of_job(const struct integer_job *j, int i)
{
    return at_most(j->tiles_a_job, j->packing.tiles - i * j->tiles_a_job);
}

/* ---- by stripes, for sets with multiply_stripe ---- */

/* What a job keeps beside the packed weights: it lies in L2 with them. */
enum { ROOM_BYTES = 256 * 1024, JOB_BYTES = 448 * 1024, STRIPES_MOST = 64, FEW_BYTES = 384 * 1024, FEW_AHEAD = 6 * 1024 };

struct room {
    uint8_t *at;
};

static void *room_take(struct room *m, size_t bytes)
{
    void *p = m->at;
    m->at += (bytes + 63) / 64 * 64;
    return p;
}

static bool scales_in_place(const struct panel *a)
{
    return a->layout->scales == SCALES_F16 && !a->has_min;
}

/* Room for a stripe of so many blocks of two tiles. */
static size_t stripe_bytes(const struct integer_job *j, int blocks)
{
    const struct panel *a = &j->panel;
    size_t scales = sizeof(float[2][TILE_ROWS]) * (size_t)(blocks * a->subs), chunks = (size_t)(blocks + CHUNK_BLOCKS - 1) / CHUNK_BLOCKS;
    return (scales_in_place(a) ? 0 : scales * (a->has_min ? 2 : 1)) +
           (a->layout->plane == PLANE_6K ? 2 * CHUNK_COLS * TILE_ROWS * chunks : 0) +
           (j->packing.w->packed ? 0 : 2 * (j->packing.chunk_bytes + 64) * chunks) + 256;
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
    for (int c = 0; c * CHUNK_BLOCKS < s.blocks; c++)
        for (int r = 0; r < 2; r++)
            s.chunk[c][r] = r < tiles ? packed_chunk(j, tile + r, chunk + c, j->packing.w->packed ? NULL : room_take(m, j->packing.chunk_bytes))
                                      : s.chunk[c][0];
    s.next_step = 2 * j->packing.chunk_bytes / CHUNK_BLOCKS;
    s.next = s.chunk[0][0] + (a->groups == 1 ? FEW_AHEAD : (size_t)s.blocks * s.next_step);
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
    a->ops->multiply_stripe(a->p->w->t->format, s, a->wide, panel_at(a, first, T, block), T, false, &sums);
    for (int t = 0; t < T; t++)
        memcpy(y + (size_t)t * a->p->ldy, part[t], bytes);
}

/* One group of activation rows; between stripes the sums wait in y. */
static void multiply_group(const struct integer_job *j, const struct stripe *s, int tile, int tiles, int chunk, int g, bool ahead)
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

/* Activations that stay in L2: pair by pair, so that the weights are one stream. */
static void stripe_job(void *ctx, int i, int thread)
{
    const struct integer_job *j = ctx;
    int from = i * j->tiles_a_job, to = from + tiles_of_job(j, i);
    uint8_t memory[ROOM_BYTES] __attribute__((aligned(64)));
    (void)thread;
    for (int tile = from; tile < to; tile += 2)
        for (int chunk = 0; chunk * CHUNK_BLOCKS < j->blocks; chunk += j->chunks_a_stripe) {
            struct room m = { memory };
            int tiles = at_most(to - tile, 2);
            struct stripe s = stripe_open(j, tile, tiles, chunk, &m);
            for (int g = 0; g < j->panel.groups; g++)
                multiply_group(j, &s, tile, tiles, chunk, g, g == 0 && j->packing.w->packed);
        }
}

/* Others: group by group, with the weights of the whole job in L2; y is written in runs of the job's rows. */
static void stripe_job_by_rows(void *ctx, int i, int thread)
{
    const struct integer_job *j = ctx;
    int from = i * j->tiles_a_job, to = from + tiles_of_job(j, i), n = 0;
    uint8_t memory[ROOM_BYTES] __attribute__((aligned(64)));
    struct room m = { memory };
    struct stripe s[STRIPES_MOST];
    (void)thread;
    for (int chunk = 0; chunk * CHUNK_BLOCKS < j->blocks; chunk += j->chunks_a_stripe)
        for (int tile = from; tile < to; tile += 2)
            s[n++] = stripe_open(j, tile, at_most(to - tile, 2), chunk, &m);
    for (int g = 0; g < j->panel.groups; g++)
        for (int k = 0, pairs = (to - from + 1) / 2; k < n; k++) {
            int tile = from + k % pairs * 2;
            multiply_group(j, &s[k], tile, at_most(to - tile, 2), k / pairs * j->chunks_a_stripe, g, false);
        }
}

/* ---- by chunks, for sets with expand and multiply ---- */

/* Accumulators of a job stay in L2 beside a chunk of BLOCK_ROWS activation rows: at most ACC_FLOATS of them. */
enum { ACC_FLOATS = 48 * 1024, BLOCK_ROWS = 258, LARGEST_CHUNK = CHUNK_COLS * TILE_ROWS + 2 * 16 * TILE_ROWS * 4 };

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
    b.to = b.from + tiles_of_job(j, i);
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

/* Most tiles of a job by stripes; sets how many chunks a stripe has, and the order. */
static int plan_stripes(struct integer_job *j)
{
    const struct panel *a = &j->panel;
    bool large = a->layout->plane == PLANE_8 || a->layout->plane == PLANE_6K;
    j->chunks_a_stripe = a->groups == 1 && !scales_in_place(a) ? 1 : large ? 2 : STRIPE_CHUNKS;
    int stripes = (j->blocks + j->chunks_a_stripe * CHUNK_BLOCKS - 1) / (j->chunks_a_stripe * CHUNK_BLOCKS);
    size_t pair = stripe_bytes(j, j->blocks) + (size_t)stripes * 256, all = pair + 2 * j->packing.tile_bytes;
    j->rows_outside = (size_t)a->p->n * (size_t)j->blocks * a->unit > FEW_BYTES && pair <= ROOM_BYTES && stripes <= STRIPES_MOST;
    if (!j->rows_outside)
        return j->packing.tiles + 1;
    size_t pairs = ROOM_BYTES / pair < JOB_BYTES / all ? ROOM_BYTES / pair : JOB_BYTES / all;
    return 2 * at_most(pairs ? (int)pairs : 1, STRIPES_MOST / stripes);
}

static int plan_chunks(struct integer_job *j)
{
    int blocks = (j->panel.p->n + BLOCK_ROWS - 1) / BLOCK_ROWS;
    j->groups_a_block = (j->panel.groups + blocks - 1) / blocks;
    return ACC_FLOATS / (TILE_ROWS * j->groups_a_block * j->panel.ops->group);
}

static void integer_apply(const struct product *p)
{
    struct integer_job j = { .panel = panel_of(p), .packing = packing_of(p->w), .blocks = p->a->cols / 32 };
    bool stripes = j.panel.ops->multiply_stripe != NULL;
    int most = stripes ? plan_stripes(&j) : plan_chunks(&j);
    j.tiles_a_job = share(j.packing.tiles, pool_threads(p->pool), most);
    pool_run(p->pool, (j.packing.tiles + j.tiles_a_job - 1) / j.tiles_a_job,
             !stripes ? chunk_job : j.rows_outside ? stripe_job_by_rows : stripe_job, &j);
}

void tiles_apply(const struct product *p)
{
    (p->rounding == ROUND_NONE ? float_tiles_apply : integer_apply)(p);
}
