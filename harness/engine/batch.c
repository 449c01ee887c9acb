/* batch.c - spans are cut into micro-batches of at most batch_tokens rows; each goes through all layers, then
 * the rows whose logits are wanted go through the head. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { SOFTCAP_COLS = 1 << 14 };

/* ---- one micro-batch ---- */

bool batch_open(struct engine *e, struct error *err)
{
    struct batch *b = &e->batch;
    size_t n = (size_t)e->batch_tokens;
    b->pieces = mem_new(n, sizeof *b->pieces, err);
    b->chunks = mem_new(n, sizeof *b->chunks, err);
    b->units = mem_new(n, sizeof *b->units, err);
    b->position = mem_new(n, sizeof *b->position, err);
    b->piece_of = mem_new(n, sizeof *b->piece_of, err);
    b->ids = mem_new(n, sizeof *b->ids, err);
    e->buffer_bytes += n * (sizeof *b->pieces + sizeof *b->chunks + sizeof *b->units + 3 * sizeof(int));
    return b->pieces && b->chunks && b->units && b->position && b->piece_of && b->ids;
}

void batch_close(struct engine *e)
{
    struct batch *b = &e->batch;
    free(b->pieces);
    free(b->chunks);
    free(b->units);
    free(b->position);
    free(b->piece_of);
    free(b->ids);
}

void batch_begin(struct engine *e)
{
    struct batch *b = &e->batch;
    b->n = b->n_pieces = b->n_chunks = 0;
    memset(b->rope_ready, 0, sizeof b->rope_ready);
}

void batch_add(struct engine *e, struct seq *s, int first, int n)
{
    struct batch *b = &e->batch;
    for (int i = 0; i < n; i++) {
        b->position[b->n + i] = first + i;
        b->piece_of[b->n + i] = b->n_pieces;
        b->ids[b->n + i] = s->ids ? s->ids[first + i - s->base] : 0;
    }
    for (int i = 0; i < n; i += QUERIES_A_JOB)
        b->chunks[b->n_chunks++] = (struct chunk){ b->n_pieces, i, n - i < QUERIES_A_JOB ? n - i : QUERIES_A_JOB };
    b->pieces[b->n_pieces++] = (struct piece){ s, first, n, b->n };
    b->n += n;
}

/* Chunks of different sequences on one prefix go together while they are few tokens. */
static void find_units(struct batch *b)
{
    int tokens = 0;
    b->n_units = 0;
    for (int i = 0; i < b->n_chunks; i++) {
        const struct chunk *c = &b->chunks[i];
        const struct seq *prefix = b->pieces[c->piece].s->prefix;
        bool joins = i && prefix && prefix == b->pieces[b->chunks[i - 1].piece].s->prefix && tokens + c->n <= QUERIES_A_JOB;
        tokens = joins ? tokens + c->n : c->n;
        if (joins)
            b->units[b->n_units - 1].n++;
        else
            b->units[b->n_units++] = (struct unit){ i, 1 };
    }
}

bool batch_ready(struct engine *e, int slot, struct error *err)
{
    size_t runs = 0;
    find_units(&e->batch);
    for (int i = 0; i < e->batch.n_pieces; i++) {
        const struct piece *p = &e->batch.pieces[i];
        size_t most = seq_runs_most(p->s, p->first + p->n);
        runs = most > runs ? most : runs;
        if (!seq_reserve(p->s, p->first + p->n, slot, err))
            return false;
    }
    return scratch_runs(e, runs, err);
}

/* ---- embedding ---- */

static void embed_row(struct engine *e, int row, int thread)
{
    (void)thread;
    float *x = e->b.x + (size_t)row * (size_t)e->c->hidden;
    tensor_row(e->g.embed, 0, e->batch.ids[row], x);
    vec_scale(e->k, x, e->c->embed_scale, e->c->hidden);
}

/* ple holds the projection of the embedding; the token's own row of the table joins it. */
static void ple_row(struct engine *e, int row, int thread)
{
    const struct model_config *c = e->c;
    int p = c->ple_size, wide = c->n_layers * p;
    float *out = e->b.ple + (size_t)row * (size_t)wide, *own = e->scratch[thread].wide;
    tensor_row(e->g.ple_embed, 0, e->batch.ids[row], own);
    vec_scale(e->k, own, (float)sqrt((double)p), wide);
    vec_scale(e->k, out, (float)(1.0 / sqrt((double)c->hidden)), wide);
    for (int l = 0; l < c->n_layers; l++)
        vec_rms_norm(e->k, out + l * p, e->g.ple_norm.w, c->eps, out + l * p, p);
    vec_add(e->k, out, own, wide);
    vec_scale(e->k, out, (float)sqrt(0.5), wide);
}

void embed_rows(struct engine *e)
{
    int n = e->batch.n, d = e->c->hidden, wide = e->c->n_layers * e->c->ple_size;
    rows_run(e, n, (size_t)d, embed_row);
    if (!wide)
        return;
    acts_set(&e->a_in, e->b.x, (size_t)d, n, d);
    apply(e, &e->g.ple_proj, 0, &e->a_in, NULL, n, e->b.ple, (size_t)wide);
    rows_run(e, n, (size_t)wide, ple_row);
}

/* ---- head ---- */

static int softcap_parts(const struct engine *e)
{
    return (e->c->vocab + SOFTCAP_COLS - 1) / SOFTCAP_COLS;
}

static void softcap_part(struct engine *e, int i, int thread)
{
    (void)thread;
    int row = i / softcap_parts(e), from = i % softcap_parts(e) * SOFTCAP_COLS;
    int n = e->c->vocab - from < SOFTCAP_COLS ? e->c->vocab - from : SOFTCAP_COLS;
    vec_softcap(e->k, e->batch.logits + (size_t)row * (size_t)e->c->vocab + from, e->c->final_softcap, n);
}

void head_rows(struct engine *e, const float *x, int n, float *logits)
{
    acts_set(&e->a_in, x, (size_t)e->c->hidden, n, e->c->hidden);
    apply(e, &e->g.head, 0, &e->a_in, NULL, n, logits, (size_t)e->c->vocab);
    e->batch.logits = logits;
    if (e->c->final_softcap > 0)
        rows_run(e, n * softcap_parts(e), SOFTCAP_COLS, softcap_part);
}

/* Final norm of the rows whose logits are wanted, side by side. */
static int wanted_rows(struct engine *e, const struct work *w, const int *work_of)
{
    size_t d = (size_t)e->c->hidden;
    int n = 0;
    for (int row = 0; row < e->batch.n; row++) {
        if (e->batch.position[row] < w[work_of[e->batch.piece_of[row]]].first_logits)
            continue;
        vec_rms_norm(e->k, e->b.x + (size_t)row * d, e->g.out_norm.w, e->c->eps, e->b.wanted + (size_t)n++ * d, (int)d);
    }
    return n;
}

/* ---- all micro-batches of a call ---- */

static void layers_run(struct engine *e)
{
    for (int i = 0; i < e->c->n_layers; i++)
        layer_run(e, i, &layer_whole, e->b.x, e->c->ple_size ? e->b.ple : NULL);
}

/* Fill a micro-batch from work w[*at] on; *next is the first position of w[*at] not yet taken. */
static void batch_fill(struct engine *e, const struct work *w, int n, int *at, int *next, int *work_of)
{
    batch_begin(e);
    while (*at < n && e->batch.n < e->batch_tokens) {
        struct seq *s = w[*at].s;
        int room = e->batch_tokens - e->batch.n, left = s->length - *next;
        int take = left < room ? left : room;
        if (take > 0) {
            work_of[e->batch.n_pieces] = *at;
            batch_add(e, s, *next, take);
        }
        *next += take;
        if (*next == s->length && ++*at < n)
            *next = w[*at].s->computed;
    }
}

bool batch_run(struct engine *e, const struct work *w, int n, const struct logits_sink *sink, struct error *err)
{
    int *work_of = mem_new((size_t)e->batch_tokens, sizeof *work_of, err);
    bool ok = work_of != NULL;
    int at = 0, next = n > 0 ? w[0].s->computed : 0;
    while (ok && at < n) {
        batch_fill(e, w, n, &at, &next, work_of);
        if (!e->batch.n)
            break;
        ok = batch_ready(e, -1, err);
        if (!ok)
            break;
        embed_rows(e);
        layers_run(e);
        int wanted = sink ? wanted_rows(e, w, work_of) : 0;
        for (int i = 0; i < e->batch.n_pieces; i++)
            seq_advance(e->batch.pieces[i].s, e->batch.pieces[i].first + e->batch.pieces[i].n);
        ok = !wanted || sink->take(sink->ctx, e, wanted, err);
    }
    free(work_of);
    return ok;
}

/* ---- engine_forward ---- */

bool append_check(const struct seq *s, const int32_t *ids, int n, struct error *err)
{
    const struct model_config *c = s->e->c;
    if (s->n_children)
        return fail(err, STATUS_INPUT, "a sequence that is the prefix of %d others cannot grow", s->n_children);
    if (n > c->context - s->length)
        return fail(err, STATUS_INPUT, "%d tokens after %d: more than the model's context of %d", n, s->length, c->context);
    for (int i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= c->vocab)
            return fail(err, STATUS_INPUT, "token %d at position %d: ids go from 0 to %d", (int)ids[i], s->length + i,
                        c->vocab - 1);
    return true;
}

static bool spans_check(struct engine *e, const struct span *spans, int n, struct error *err)
{
    e->calls++;
    for (int i = 0; i < n; i++) {
        const struct span *p = &spans[i];
        if (p->seq->mark == e->calls)
            return fail(err, STATUS_INPUT, "span %d: its sequence is in this call already", i);
        p->seq->mark = e->calls;
        if (p->n < 0 || p->first_logits < 0 || p->first_logits > p->n)
            return fail(err, STATUS_INPUT, "span %d: logits from %d of %d tokens", i, p->first_logits, p->n);
        if (!append_check(p->seq, p->ids, p->n, err))
            return fail_in(err, "span %d", i);
    }
    return true;
}

static void spans_undo(const struct span *spans, int n)
{
    for (int i = 0; i < n; i++)
        seq_truncate(spans[i].seq, spans[i].seq->length - spans[i].n);
}

static bool take_logits(void *ctx, struct engine *e, int n, struct error *err)
{
    (void)err;
    float **out = ctx;
    head_rows(e, e->b.wanted, n, *out);
    *out += (size_t)n * (size_t)e->c->vocab;
    return true;
}

bool engine_forward(struct engine *e, const struct span *spans, int n, float *logits, struct error *err)
{
    if (!spans_check(e, spans, n, err))
        return false;
    struct work *w = mem_new((size_t)n, sizeof *w, err);
    if (!w)
        return false;
    int done = 0;
    for (; done < n; done++) {
        w[done] = (struct work){ spans[done].seq, spans[done].seq->length + spans[done].first_logits };
        if (!seq_ids_add(spans[done].seq, spans[done].ids, spans[done].n, err))
            break;
    }
    struct logits_sink sink = { take_logits, &logits };
    bool ok = done == n && batch_run(e, w, n, &sink, err);
    if (!ok)
        spans_undo(spans, done);
    free(w);
    return ok;
}
