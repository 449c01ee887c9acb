/* attention.c - one job: some query heads of one K/V head, for the queries of a unit.  A unit is part of one
 * sequence's tokens, or the few tokens each of sequences that share a prefix: the prefix's K and V are then read once
 * for all of them, and what is each one's own after that.  Jobs of one K/V head follow each other.  The arithmetic of
 * a (query, head) is attention_head's, whatever it is done beside. */
#include "internal.h"

struct attention {
    struct engine *e;
    int group;                  /* query heads of a K/V head */
    int split;                  /* parts a group is cut into, when jobs would be too few */
};

struct part {                   /* what one job does */
    const struct layer *l;
    const struct unit *u;
    int kv_head, head0, heads;
    int window;
    struct attention_query *queries;    /* the unit's tokens, each with its heads */
    struct kv_run *runs;
};

static int sees_from(const struct part *p, int position)
{
    return p->window && position >= p->window ? position - p->window + 1 : 0;
}

static int chunk_first(const struct engine *e, const struct chunk *c)
{
    return e->batch.pieces[c->piece].first + c->first;
}

static int set_queries(struct engine *e, const struct part *p)
{
    int h = p->l->c->head_size, n = 0;
    size_t ld = (size_t)e->c->n_heads * (size_t)h;
    for (int i = p->u->first; i < p->u->first + p->u->n; i++) {
        const struct chunk *c = &e->batch.chunks[i];
        for (int j = 0; j < c->n; j++) {
            size_t at = (size_t)(e->batch.pieces[c->piece].row + c->first + j) * ld + (size_t)p->head0 * (size_t)h;
            int position = chunk_first(e, c) + j;
            for (int g = 0; g < p->heads; g++, at += (size_t)h)
                p->queries[n++] = (struct attention_query){ .q = e->b.q + at, .out = e->b.o + at,
                                                            .from = sees_from(p, position), .to = position + 1 };
        }
    }
    return n;
}

static void run_tiles(struct engine *e, const struct part *p, const struct seq *s, struct attention_query *queries, int n,
                      int from, int to)
{
    if (from >= to)
        return;
    int n_runs = seq_runs(s, p->l->kv_slot, p->kv_head, from, to, p->runs);
    attention_tiles(e->k, queries, n, p->l->c->head_size, p->runs, n_runs, from, to, e->c->attn_scale, e->c->attn_softcap);
}

/* Whole tiles of the common prefix for all queries; returns the position up to which they went. */
static int run_prefix(struct engine *e, const struct part *p, int n)
{
    const struct seq *s = e->batch.pieces[e->batch.chunks[p->u->first].piece].s;
    if (p->u->n < 2)
        return 0;
    int from = p->queries[0].from, border = s->base - s->base % ATTENTION_TILE;
    for (int i = 1; i < n; i++)
        from = p->queries[i].from < from ? p->queries[i].from : from;
    run_tiles(e, p, s->prefix, p->queries, n, from, border);
    return border;
}

static void attention_job(void *ctx, int job, int thread)
{
    const struct attention *a = ctx;
    struct engine *e = a->e;
    const struct layer *l = e->batch.layer;
    int of_head = job / e->batch.n_units, heads = a->group / a->split, kv_head = of_head / a->split;
    struct part p = { .l = l, .u = &e->batch.units[job % e->batch.n_units], .kv_head = kv_head, .heads = heads,
                      .head0 = kv_head * a->group + of_head % a->split * heads, .window = l->c->sliding ? l->c->window : 0,
                      .queries = e->scratch[thread].queries, .runs = e->scratch[thread].runs };
    int n = set_queries(e, &p), at = 0;
    attention_start(p.queries, n, l->c->head_size);
    int border = run_prefix(e, &p, n);
    for (int i = p.u->first; i < p.u->first + p.u->n; i++) {
        const struct chunk *c = &e->batch.chunks[i];
        int first = chunk_first(e, c), from = sees_from(&p, first);
        run_tiles(e, &p, e->batch.pieces[c->piece].s, p.queries + at, c->n * heads, from > border ? from : border, first + c->n);
        at += c->n * heads;
    }
    attention_end(p.queries, n, l->c->head_size);
}

static double work_of(const struct engine *e)
{
    const struct layer *l = e->batch.layer;
    double seen = 0;
    for (int i = 0; i < e->batch.n_pieces; i++) {
        const struct piece *p = &e->batch.pieces[i];
        int to = p->first + p->n, window = l->c->sliding && to > l->c->window ? l->c->window : to;
        seen += (double)p->n * window;
    }
    return 2 * seen * e->c->n_heads * l->c->head_size;
}

void attention_run(struct engine *e)
{
    const struct layer *l = e->batch.layer;
    struct attention a = { e, e->c->n_heads / l->c->n_kv_heads, 1 };
    int jobs = e->batch.n_units * l->c->n_kv_heads;
    while (a.split < a.group && (jobs * a.split < 2 * pool_threads(e->pool) || a.group % a.split))
        a.split++;
    pool_run(pool_for(e, work_of(e)), jobs * a.split, attention_job, &a);
}
