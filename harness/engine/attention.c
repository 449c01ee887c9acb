/* attention.c - one job: the queries of a chunk of one sequence's tokens, all query heads of one K/V head, so that
 * these read the same K and V while they are in cache.  Jobs of one K/V head follow each other, so sequences that
 * share a prefix find its K and V there too.  The arithmetic of a (query, head) is attention_head's alone. */
#include "internal.h"

struct attention {
    struct engine *e;
    int group;                  /* query heads of a K/V head */
    int split;                  /* parts a group is cut into, when jobs would be too few */
};

static void attention_job(void *ctx, int job, int thread)
{
    const struct attention *a = ctx;
    struct engine *e = a->e;
    const struct layer *l = e->batch.layer;
    const struct chunk *c = &e->batch.chunks[job % e->batch.n_chunks];
    const struct piece *p = &e->batch.pieces[c->piece];
    struct scratch *s = &e->scratch[thread];
    int part = job / e->batch.n_chunks, kv_head = part / a->split, h = l->c->head_size;
    int heads = a->group / a->split, head0 = kv_head * a->group + part % a->split * heads;
    int window = l->c->sliding ? l->c->window : 0, first = p->first + c->first;
    int from = window && first >= window ? first - window + 1 : 0;
    int n_runs = seq_runs(p->s, l->kv_slot, kv_head, from, first + c->n, s->runs);
    size_t ld = (size_t)e->c->n_heads * (size_t)h;
    for (int i = 0; i < c->n; i++) {
        int at = first + i, sees = window && at >= window ? at - window + 1 : 0;
        size_t row = (size_t)(p->row + c->first + i) * ld;
        for (int g = head0; g < head0 + heads; g++)
            attention_head(e->k, e->b.q + row + (size_t)g * (size_t)h, h, s->runs, n_runs, sees, at + 1, e->c->attn_scale,
                           e->c->attn_softcap, e->b.o + row + (size_t)g * (size_t)h, s->f);
    }
}

void attention_run(struct engine *e)
{
    const struct layer *l = e->batch.layer;
    struct attention a = { e, e->c->n_heads / l->c->n_kv_heads, 1 };
    int jobs = e->batch.n_chunks * l->c->n_kv_heads;
    if (jobs < 4 * pool_threads(e->pool))
        a.split = a.group;
    pool_run(e->pool, jobs * a.split, attention_job, &a);
}
