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
    int jobs;
};

/* What one call of pool_run multiplies by stripes: matrices that share a panel, one after the other; or two of them (gate,
 * up), some pairs of tiles of each in turn, whose sums meet in the panel of a third. */
enum { GLU_ROWS = 256 };
struct sweep {
    struct integer_job job[MATRICES_AT_ONCE];
    int n;
    const struct panel *to;             /* NULL: sums go to their product's y */
    int pairs_in_turn;
    enum activation activation;
};

/* What a job is at: one stripe of one pair of tiles, for some groups of activation rows. */
struct passage {
    const struct integer_job *job;
    int tile, tiles, chunk;             /* first tile, 1 or 2 of them; first chunk of the stripe */
    int group, end;
    int row;                            /* whose sums go to y, those of the next row to y + ldy .. */
    float *y;
    size_t ldy;
    int turn;                           /* sums that meet: which of the pairs in turn */
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

/* Q6_K is prepared only where more groups than these share the work. */
static bool is_prepared(const struct panel *a)
{
    enum { FEW_GROUPS = 3 };
    return a->layout->plane == PLANE_6K && a->groups > FEW_GROUPS;
}

/* f16 scales need only be converted, Q6_K's be made from a byte each. */
static bool scales_in_place(const struct panel *a)
{
    return (a->layout->scales == SCALES_F16 && !a->has_min) || (a->layout->plane == PLANE_6K && !is_prepared(a));
}

/* A last tile alone is taken twice: both are the same, and so are their sums.  s is filled in place: for one row of activations
 * a copy would cost as much as a chunk. */
static void stripe_open(const struct passage *at, struct room *m, struct stripe *s)
{
    const struct integer_job *j = at->job;
    const struct panel *a = &j->panel;
    s->blocks = at_most(j->blocks - at->chunk * CHUNK_BLOCKS, j->chunks_a_stripe * CHUNK_BLOCKS);
    size_t scales = sizeof *s->scale * (size_t)(s->blocks * a->subs);
    s->scale = scales_in_place(a) ? NULL : room_take(m, scales);
    s->min = a->has_min ? room_take(m, scales) : NULL;
    s->expanded = is_prepared(a) ? room_take(m, (size_t)s->blocks * 2 * 32 * TILE_ROWS) : NULL;
    const uint8_t *packed = j->packing.w->packed ? chunk_at(&j->packing, a->p->mat, at->tile, at->chunk) : NULL;
    for (int c = 0; c * CHUNK_BLOCKS < s->blocks; c++, packed += packed ? at->tiles * (ptrdiff_t)j->packing.chunk_bytes : 0)
        for (int r = 0; r < 2; r++)
            s->chunk[c][r] = r >= at->tiles ? s->chunk[c][0]
                             : packed       ? packed + (r ? bytes_of_chunk(&j->packing, at->chunk + c) : 0)
                                            : packed_chunk(j, at->tile + r, at->chunk + c, room_take(m, j->packing.chunk_bytes));
    if (s->scale || s->expanded)
        a->ops->begin_stripe(a->p->w->t->format, s);
}

/* The last rows of W that are no whole tile: through a buffer. */
static void multiply_edge(const struct passage *s, const struct stripe *w, int first, int T)
{
    const struct panel *a = &s->job->panel;
    float part[16][2][TILE_ROWS], *y = s->y + (size_t)(first - s->row) * s->ldy;
    size_t bytes = (size_t)(a->p->w->t->rows - s->tile * TILE_ROWS) * sizeof *y;
    struct sums sums = { s->chunk ? part[0][0] : NULL, part[0][0], 2 * TILE_ROWS, s->tiles < 2 ? 0 : TILE_ROWS };
    assert(T <= 16);
    for (int t = 0; t < T && s->chunk; t++)
        memcpy(part[t], y + (size_t)t * s->ldy, bytes);
    a->ops->multiply_stripe(a->p->w->t->format, w, a->wide, panel_at(a, first, T, s->chunk * CHUNK_BLOCKS), T, NULL, &sums);
    for (int t = 0; t < T; t++)
        memcpy(y + (size_t)t * s->ldy, part[t], bytes);
}

static void multiply_group(const struct passage *s, const struct stripe *w, int group, const uint8_t *ahead)
{
    const struct panel *a = &s->job->panel;
    int first = group_first(a->p->n, a->groups, group), end = group_first(a->p->n, a->groups, group + 1);
    bool edge = (s->tile + s->tiles) * TILE_ROWS > a->p->w->t->rows;
    for (int T; first < end; first += T) {
        T = width_of(a->ops->widths, end - first);
        if (edge) {
            multiply_edge(s, w, first, T);
            continue;
        }
        float *y = s->y + (size_t)(first - s->row) * s->ldy;
        struct sums sums = { s->chunk ? y : NULL, y, s->ldy, s->tiles < 2 ? 0 : TILE_ROWS };
        a->ops->multiply_stripe(a->p->w->t->format, w, a->wide, panel_at(a, first, T, s->chunk * CHUNK_BLOCKS), T, ahead, &sums);
    }
}

static int pairs_of(const struct integer_job *j, int i)
{
    int first = i / j->row_parts * j->tiles_a_job;
    return (at_most(j->tiles_a_job, j->packing.tiles - first) + 1) / 2;
}

/* Step k of job i of a matrix: a panel that stays in L2 meets whole pairs, and the weights are one stream; else stripe after
 * stripe, so that a stripe of the panel is read from L2 for all pairs. */
static bool matrix_passage(const struct integer_job *j, int i, int k, struct passage *s)
{
    const struct product *p = j->panel.p;
    int groups = j->panel.groups, part = i % j->row_parts, pairs = i < j->jobs ? pairs_of(j, i) : 0;
    if (k >= pairs * j->stripes)
        return false;
    int pair = j->pairs_outside ? k / j->stripes : k % pairs, stripe = j->pairs_outside ? k % j->stripes : k / pairs;
    int tile = i / j->row_parts * j->tiles_a_job + 2 * pair;
    *s = (struct passage){ .job = j, .tile = tile, .tiles = at_most(2, j->packing.tiles - tile), .chunk = stripe * j->chunks_a_stripe,
                           .group = group_first(groups, j->row_parts, part), .end = group_first(groups, j->row_parts, part + 1),
                           .y = p->y + tile * TILE_ROWS, .ldy = p->ldy };
    return true;
}

/* The same of gate and up: the pairs in turn of one, then of the other. */
static bool turn_passage(const struct sweep *w, int i, int k, struct passage *s)
{
    const struct integer_job *j = &w->job[0];
    int both = 2 * w->pairs_in_turn * j->stripes, first = k / both * w->pairs_in_turn, pairs = i < j->jobs ? pairs_of(j, i) - first : 0;
    int steps = at_most(pairs, w->pairs_in_turn) * j->stripes, at = k % both;
    if (at >= 2 * steps)
        return false;
    matrix_passage(&w->job[at / steps], i, first * j->stripes + at % steps, s);
    s->turn = at % steps / j->stripes;
    return true;
}

/* Step k of job i of all. */
static bool passage_at(const struct sweep *w, int i, int k, struct passage *s)
{
    int m = 0;
    if (w->to)
        return turn_passage(w, i, k, s);
    while (m < w->n && i >= w->job[m].jobs)
        i -= w->job[m++].jobs;
    return m < w->n && matrix_passage(&w->job[m], i, k, s);
}

/* The weights wanted next are read ahead bit by bit beside the groups. */
static void multiply_pair(const struct passage *s, const uint8_t *next)
{
    const struct integer_job *j = s->job;
    uint8_t memory[ROOM_BYTES] __attribute__((aligned(64)));
    struct room m = { memory };
    struct stripe w;
    stripe_open(s, &m, &w);
    size_t block_bytes = 2 * j->packing.chunk_bytes / CHUNK_BLOCKS, at = 0;
    w.next_step = (block_bytes / (size_t)(s->end - s->group) + 63) / 64 * 64;
    for (int g = s->group; g < s->end; g++, at += w.next_step) {
        const uint8_t *ahead = next && at < block_bytes ? next + at * (size_t)w.blocks : NULL;
        multiply_group(s, &w, g, j->panel.groups == 1 ? w.chunk[0][0] + few_ahead(&j->panel) : ahead);
    }
}

/* Sums that meet: [pair in turn][row][columns of a pair]. */
typedef float glu_sums[GLU_ROWS * 2 * TILE_ROWS];

static int first_row(const struct passage *s, int group)
{
    return group_first(s->job->panel.p->n, s->job->panel.groups, group);
}

/* The columns that a pair of tiles gives are one block of the next matrix's panel; s: the last of the pairs in turn. */
static void join_pairs(const struct sweep *w, const struct passage *s, float *gate, const float *up)
{
    int n = (first_row(s, s->end) - s->row) * 2 * TILE_ROWS;
    vec_glu(s->job->panel.p->w->k, w->activation, gate, up, gate, (s->turn + 1) * n);
    for (int i = 0; i <= s->turn; i++)
        panel_fill(w->to, s->group, s->end, s->tile / 2 - s->turn + i, gate + (size_t)i * (size_t)n);
}

/* After its last step this thread will probably take the next job. */
static void stripe_job(void *ctx, int i, int thread)
{
    const struct sweep *w = ctx;
    glu_sums sums[2] __attribute__((aligned(64)));
    struct passage s, next;
    (void)thread;
    bool more = passage_at(w, i, 0, &s);
    for (int k = 1; more; k++, s = next) {
        more = passage_at(w, i, k, &next);
        bool known = s.job->panel.groups > 1 && (more || passage_at(w, i + 1, 0, &next)) && next.job->packing.w->packed;
        if (w->to) {
            s.ldy = 2 * TILE_ROWS;
            s.row = first_row(&s, s.group);
            s.y = sums[s.job - w->job] + (size_t)(s.turn * (first_row(&s, s.end) - s.row)) * s.ldy;
        }
        multiply_pair(&s, known ? chunk_at(&next.job->packing, next.job->panel.p->mat, next.tile, next.chunk) : NULL);
        if (w->to && s.job == &w->job[1] && (!more || next.job != s.job))
            join_pairs(w, &s, sums[0], sums[1]);
    }
}

/* ---- by chunks, for sets with expand and multiply ---- */

/* Accumulators of a job stay in L2 beside a chunk of BLOCK_ROWS activation rows: at most ACC_FLOATS of them. */
enum { ACC_FLOATS = 48 * 1024, BLOCK_ROWS = 258, FEW_BYTES = 384 * 1024 };

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
    if (a->layout->plane == PLANE_8 || is_prepared(a))
        return 2;
    if (chunks <= STRIPE_CHUNKS && (size_t)chunks * chunk <= SHORT_ROW)
        return chunks;
    return at_most((int)(PANEL_BYTES / chunk), STRIPE_CHUNKS);
}

enum { L2_BYTES = 640 * 1024 };

/* Jobs of a matrix whose rows are cut as row_parts says. */
static void plan_jobs(struct integer_job *j, int most)
{
    j->tiles_a_job = share(j->packing.tiles * j->row_parts, pool_threads(j->panel.p->pool), most);
    j->jobs = (j->packing.tiles + j->tiles_a_job - 1) / j->tiles_a_job * j->row_parts;
}

/* A panel, or a stripe of it, that stays in L2 is read from there for one pair of tiles after another; larger ones are
 * cut by rows, unless that packed weights anew for each part. */
static void plan_stripes(struct integer_job *j)
{
    const struct panel *a = &j->panel;
    size_t row = (size_t)a->p->n * a->unit;
    j->chunks_a_stripe = stripe_chunks(j);
    j->stripes = (j->blocks + j->chunks_a_stripe * CHUNK_BLOCKS - 1) / (j->chunks_a_stripe * CHUNK_BLOCKS);
    j->pairs_outside = row * (size_t)j->blocks <= L2_BYTES;
    if (!j->pairs_outside && j->packing.w->packed)
        j->row_parts = at_most((int)(row * (size_t)at_most(j->blocks, j->chunks_a_stripe * CHUNK_BLOCKS) / L2_BYTES) + 1, a->groups);
    plan_jobs(j, j->packing.tiles + 1);
}

/* Sums that meet wait for few pairs: each pair's stripes follow each other, and the rows are cut until whole rows of the panel
 * stay in L2 and their sums in GLU_ROWS. */
static void plan_glu(struct integer_job *j)
{
    const struct panel *a = &j->panel;
    int groups = GLU_ROWS / a->ops->group, least = (a->groups + groups - 1) / groups;
    int parts = (int)((size_t)a->p->n * a->unit * (size_t)j->blocks / L2_BYTES) + 1;
    plan_stripes(j);
    j->pairs_outside = true;
    j->row_parts = at_most(parts > least ? parts : least, a->groups);
    plan_jobs(j, j->packing.tiles + 1);
}

static void plan_chunks(struct integer_job *j)
{
    int blocks = (j->panel.p->n + BLOCK_ROWS - 1) / BLOCK_ROWS;
    j->groups_a_block = (j->panel.groups + blocks - 1) / blocks;
    plan_jobs(j, ACC_FLOATS / (TILE_ROWS * j->groups_a_block * j->panel.ops->group));
}

static struct integer_job job_of(const struct product *p)
{
    return (struct integer_job){ .panel = panel_of(p), .packing = packing_of(p->w), .blocks = p->a->cols / 32, .row_parts = 1 };
}

static void chunks_apply(const struct product *p)
{
    struct integer_job j = job_of(p);
    plan_chunks(&j);
    pool_run(p->pool, j.jobs, chunk_job, &j);
}

static void stripes_apply(const struct product *p, int n)
{
    struct sweep w = { .n = n };
    int jobs = 0;
    for (int i = 0; i < n; i++) {
        w.job[i] = job_of(&p[i]);
        plan_stripes(&w.job[i]);
        jobs += w.job[i].jobs;
    }
    pool_run(p->pool, jobs, stripe_job, &w);
}

void tiles_apply(const struct product *p)
{
    if (p->rounding == ROUND_NONE)
        float_tiles_apply(p);
    else if (p->w->k->tile->multiply_stripe)
        stripes_apply(p, 1);
    else
        chunks_apply(p);
}

void tiles_apply_each(const struct product *p, int n)
{
    for (int m; n > 0; p += m, n -= m) {
        for (m = 1; m < n && panel_shared(p, p + m);)
            m++;
        if (m > 1)
            stripes_apply(p, m);
        else
            tiles_apply(p);
    }
}

bool tiles_apply_glu(const struct product *p, enum activation activation, const struct product *next)
{
    bool blocks = next->rounding == ROUND_I16 || next->rounding == ROUND_Q8_0;
    if (!panel_shared(p, p + 1) || !p[0].w->packed || !p[1].w->packed || !blocks || next->w->t->col_perm || p->w->t->rows % 32)
        return false;
    struct panel to = panel_to_fill(next);
    struct sweep w = { .job = { job_of(p), job_of(p + 1) }, .n = 2, .to = &to, .activation = activation };
    plan_glu(&w.job[0]);
    plan_glu(&w.job[1]);
    int groups = w.job[0].panel.groups, rows = (groups + w.job[0].row_parts - 1) / w.job[0].row_parts * ((p->n + groups - 1) / groups);
    w.pairs_in_turn = GLU_ROWS / rows;
    pool_run(p->pool, w.job[0].jobs, stripe_job, &w);
    panel_filled(&to);
    return true;
}
