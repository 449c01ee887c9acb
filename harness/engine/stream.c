/* stream.c - the residual stream of whole sequences, one layer at a time, for quantizers.  A layer's K/V live
 * only during its call, unless a later layer reads them. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static void group_close(struct stream_group *g)
{
    for (int i = 0; g->seqs && i < g->n_seqs; i++)
        seq_close(g->seqs[i]);
    free(g->seqs);
    *g = (struct stream_group){ 0 };
}

void stream_close(struct engine *e)
{
    for (size_t i = 0; i < e->n_groups; i++)
        group_close(&e->groups[i]);
    free(e->groups);
    e->groups = NULL;
    e->n_groups = e->groups_cap = 0;
}

void engine_stream_group(struct engine *e, int group)
{
    e->group = group;
}

void engine_stream_end(struct engine *e)
{
    stream_close(e);
}

static bool group_fill(struct engine *e, struct stream_group *g, int n_seqs, int n, struct error *err)
{
    group_close(g);
    g->group = e->group;
    g->seqs = mem_new((size_t)n_seqs, sizeof *g->seqs, err);
    if (!g->seqs)
        return false;
    g->n_seqs = n_seqs;
    g->n = n;
    for (int i = 0; i < n_seqs; i++)
        if (!seq_open(&g->seqs[i], e, NULL, err))
            return false;
    return true;
}

/* The sequences of the current group; new ones when there are none of this shape. */
static struct stream_group *group_find(struct engine *e, int n_seqs, int n, struct error *err)
{
    size_t at = 0;
    while (at < e->n_groups && e->groups[at].group != e->group)
        at++;
    if (at == e->n_groups) {
        if (!mem_grow(&e->groups, &e->groups_cap, at + 1, sizeof *e->groups, err))
            return NULL;
        e->groups[e->n_groups++] = (struct stream_group){ .group = e->group };
    }
    struct stream_group *g = &e->groups[at];
    if (g->seqs && g->n_seqs == n_seqs && g->n == n)
        return g;
    return group_fill(e, g, n_seqs, n, err) ? g : NULL;
}

static bool shape_check(const struct engine *e, int n_seqs, int n, struct error *err)
{
    if (n_seqs < 1 || n < 1 || n > e->c->context)
        return fail(err, STATUS_INPUT, "%d sequences of %d tokens: expected at least 1 of 1 to %d", n_seqs, n,
                    e->c->context);
    return true;
}

bool engine_stream_embed(struct engine *e, const int32_t *ids, int n_seqs, int n, float *x, float *ple, struct error *err)
{
    size_t d = (size_t)e->c->hidden, wide = (size_t)e->c->n_layers * (size_t)e->c->ple_size;
    int64_t total = (int64_t)n_seqs * n;
    if (!shape_check(e, n_seqs, n, err))
        return false;
    for (int64_t i = 0; i < total; i++)
        if (ids[i] < 0 || ids[i] >= e->c->vocab)
            return fail(err, STATUS_INPUT, "token %d: ids go from 0 to %d", (int)ids[i], e->c->vocab - 1);
        else if (!embedding_check(e, ids[i], err))
            return false;
    for (int64_t at = 0; at < total; at += e->batch_tokens) {
        size_t take = (size_t)(total - at < e->batch_tokens ? total - at : e->batch_tokens);
        batch_begin(e);
        e->batch.n = (int)take;
        memcpy(e->batch.ids, ids + at, take * sizeof *ids);
        embed_rows(e);
        memcpy(x + (size_t)at * d, e->b.x, take * d * sizeof *x);
        if (wide && ple)
            memcpy(ple + (size_t)at * wide, e->b.ple, take * wide * sizeof *ple);
    }
    return true;
}

/* Whole sequences and parts of them, as many rows as a micro-batch holds, from row at on. */
static void fill(struct engine *e, const struct stream_group *g, int64_t at)
{
    int64_t total = (int64_t)g->n_seqs * g->n;
    batch_begin(e);
    while (at < total && e->batch.n < e->batch_tokens) {
        int first = (int)(at % g->n), room = e->batch_tokens - e->batch.n;
        int take = g->n - first < room ? g->n - first : room;
        batch_add(e, g->seqs[at / g->n], first, take);
        at += take;
    }
}

/* Columns of what the part goes on with. */
static size_t input_cols(const struct engine *e, int layer, enum layer_step from)
{
    const struct layer_config *l = &e->c->layers[layer];
    return from == STEP_O ? (size_t)e->c->n_heads * (size_t)l->head_size : from == STEP_DOWN ? (size_t)l->ffn_size : 0;
}

static bool run_rows(struct engine *e, const struct stream_group *g, int layer, const struct layer_part *part, float *x,
                     const float *ple, struct error *err)
{
    size_t cols = input_cols(e, layer, part->from);
    size_t d = (size_t)e->c->hidden, wide = (size_t)e->c->n_layers * (size_t)e->c->ple_size;
    int64_t total = (int64_t)g->n_seqs * g->n;
    for (int64_t at = 0; at < total; at += e->batch.n) {
        fill(e, g, at);
        if (!batch_ready(e, e->layers[layer].kv_slot, err))
            return false;
        struct layer_part rows = { part->from, part->to, part->inputs ? part->inputs + (size_t)at * cols : NULL };
        layer_run(e, layer, &rows, x + (size_t)at * d, ple && wide ? ple + (size_t)at * wide : NULL);
    }
    return true;
}

static bool part_check(const struct engine *e, int layer, const struct layer_part *p, struct error *err)
{
    bool given = p->from == STEP_O || (p->from == STEP_DOWN && e->c->layers[layer].moe == MOE_NONE);
    bool stream = p->from == STEP_QKV || p->from == STEP_FFN || p->from == STEP_PLE_GATE;
    return (p->from <= p->to && (stream || (given && p->inputs))) ||
           fail(err, STATUS_INPUT, "layer %d: no part from step %d to %d", layer, (int)p->from, (int)p->to);
}

bool engine_stream_layer(struct engine *e, int layer, int n_seqs, int n, float *x, const float *ple, struct error *err)
{
    return engine_stream_part(e, layer, &layer_whole, n_seqs, n, x, ple, err);
}

bool engine_stream_part(struct engine *e, int layer, const struct layer_part *part, int n_seqs, int n, float *x, const float *ple,
                        struct error *err)
{
    if (layer < 0 || layer >= e->c->n_layers)
        return fail(err, STATUS_INPUT, "layer %d of %d", layer, e->c->n_layers);
    if (!shape_check(e, n_seqs, n, err) || !part_check(e, layer, part, err))
        return false;
    if (e->c->ple_size && !ple)
        return fail(err, STATUS_INPUT, "this model's layers need the per-layer embeddings");
    const struct layer *l = &e->layers[layer];
    struct stream_group *g = group_find(e, n_seqs, n, err);
    if (!g)
        return false;
    if (!l->owns_kv && !seq_has_slot(g->seqs[0], l->kv_slot))
        return fail(err, STATUS_INPUT, "layer %d reads the K/V of layer %d, which these sequences did not go through",
                    layer, l->c->kv_source);
    bool ok = run_rows(e, g, layer, part, x, ple, err);
    for (int i = 0; i < g->n_seqs && !l->is_donor && l->owns_kv; i++)
        seq_drop_slot(g->seqs[i], l->kv_slot);
    return ok;
}

bool engine_stream_logits(struct engine *e, int n, const float *x, float *logits, struct error *err)
{
    size_t d = (size_t)e->c->hidden, vocab = (size_t)e->c->vocab;
    if (!shape_check(e, 1, n, err))
        return false;
    for (int at = 0, take; at < n; at += take) {
        take = n - at < e->batch_tokens ? n - at : e->batch_tokens;
        for (int i = 0; i < take; i++)
            vec_rms_norm(e->k, x + (size_t)(at + i) * d, e->g.out_norm.w, e->c->eps, e->b.wanted + (size_t)i * d, (int)d);
        head_rows(e, e->b.wanted, take, logits + (size_t)at * vocab);
    }
    return true;
}
