/* generate.c - greedy generation with continuous batching: a sequence that ends makes room for the next request
 * at once; prompts go in by pieces beside the tokens that others are generating, within the token budget of a
 * micro-batch. */
#include <math.h>
#include <stdlib.h>

#include "internal.h"

struct slot {
    struct generation *g;       /* NULL: free */
    struct seq *s;
    int fed;                    /* prompt tokens handed over */
    int32_t last;               /* the token generated last, to be fed next */
    int tokens;                 /* in this step */
};

struct generator {
    struct engine *e;
    const struct generation_feed *feed;
    struct slot *slots;
    int width;
    bool drained;               /* next() returned NULL */
    struct work *work;
    int *order;                 /* slots whose logits come out of this step, in order */
    int n_order, at;
    struct top2 *tops;          /* [HEAD_ROWS] */
};

/* ---- one request ---- */

static bool is_stop(const struct model_config *c, int32_t id)
{
    for (int i = 0; i < c->n_stop; i++)
        if (c->stop_ids[i] == id)
            return true;
    return id == c->eos;
}

/* The margin of the step that chose a stop id counts too: another choice there changes the text as well. */
static bool take_token(struct generator *r, struct slot *s, const struct top2 *t, struct error *err)
{
    struct generation *g = s->g;
    double margin = (double)t->first - (double)t->second;
    if (!(g->least_margin <= margin))
        g->least_margin = margin;
    s->last = (int32_t)t->index;
    if (is_stop(r->e->c, s->last)) {
        g->finish = FINISH_EOS;
        return true;
    }
    if (!ids_add(&g->out, s->last, err))
        return false;
    if (g->stop && g->stop(g->ctx, g))
        g->finish = FINISH_STOP;
    else if ((int)g->out.n >= g->max_new || seq_length(s->s) >= r->e->c->context)
        g->finish = FINISH_LENGTH;
    return true;
}

static bool request_start(struct generator *r, struct slot *s, struct generation *g, struct error *err)
{
    const struct model_config *c = r->e->c;
    g->finish = g->max_new > 0 ? FINISH_NONE : FINISH_LENGTH;
    g->least_margin = NAN;
    g->elapsed_ns = 0;
    g->out.n = 0;
    if (g->n_prompt < 1)
        return fail(err, STATUS_INPUT, "generation needs a prompt of at least one token");
    *s = (struct slot){ .g = g };
    if (!seq_open(&s->s, r->e, g->prefix, err) || !append_check(s->s, g->prompt, g->n_prompt, err))
        return fail_in(err, "prompt of %d tokens (context %d)", g->n_prompt, c->context);
    return true;
}

static void slot_close(struct slot *s)
{
    seq_close(s->s);
    *s = (struct slot){ 0 };
}

static bool request_end(struct generator *r, struct slot *s, struct error *err)
{
    struct generation *g = s->g;
    slot_close(s);
    return r->feed->done(r->feed->ctx, g, err);
}

/* ---- one step ---- */

/* Fill free slots; a request that wants no token is given back at once. */
static bool refill(struct generator *r, struct error *err)
{
    for (int i = 0; i < r->width && !r->drained;) {
        struct slot *s = &r->slots[i];
        if (s->g) {
            i++;
            continue;
        }
        struct generation *g = r->feed->next(r->feed->ctx);
        if (!g) {
            r->drained = true;
        } else if (!request_start(r, s, g, err)) {
            return false;
        } else if (g->finish != FINISH_NONE && !request_end(r, s, err)) {
            return false;
        }
    }
    return true;
}

static bool add_work(struct generator *r, int i, const int32_t *ids, int n, bool wanted, int *n_work, struct error *err)
{
    struct slot *s = &r->slots[i];
    if (!seq_ids_add(s->s, ids, n, err))
        return false;
    s->tokens = n;
    r->work[(*n_work)++] = (struct work){ s->s, seq_length(s->s) - (wanted ? 1 : 0) };
    if (wanted)
        r->order[r->n_order++] = i;
    return true;
}

/* Every generating sequence takes one token; prompts share what is left of the budget in slot order. */
static bool gather_work(struct generator *r, int *n_work, struct error *err)
{
    int budget = r->e->batch_tokens;
    *n_work = r->n_order = r->at = 0;
    for (int i = 0; i < r->width; i++) {
        struct slot *s = &r->slots[i];
        s->tokens = 0;
        if (!s->g || s->fed < s->g->n_prompt)
            continue;
        if (!add_work(r, i, &s->last, 1, true, n_work, err))
            return false;
        budget--;
    }
    for (int i = 0; i < r->width && (budget > 0 || *n_work == 0); i++) {
        struct slot *s = &r->slots[i];
        int left = s->g ? s->g->n_prompt - s->fed : 0, take = left < budget ? left : budget;
        if (take < 1)
            continue;
        if (!add_work(r, i, s->g->prompt + s->fed, take, take == left, n_work, err))
            return false;
        s->fed += take;
        budget -= take;
    }
    return true;
}

static void top_row(struct engine *e, int row, int thread)
{
    (void)thread;
    vec_top2(e->k, e->b.logits + (size_t)row * (size_t)e->c->vocab, e->c->vocab, &e->batch.tops[row]);
}

static bool take_rows(void *ctx, struct engine *e, int n, struct error *err)
{
    struct generator *r = ctx;
    for (int i = 0; i < n; i += HEAD_ROWS) {
        int rows = n - i < HEAD_ROWS ? n - i : HEAD_ROWS;
        head_rows(e, e->b.wanted + (size_t)i * (size_t)e->c->hidden, rows, e->b.logits);
        e->batch.tops = r->tops;
        rows_run(e, rows, (size_t)e->c->vocab * 4, top_row);
        for (int j = 0; j < rows; j++)
            if (!take_token(r, &r->slots[r->order[r->at++]], &r->tops[j], err))
                return false;
    }
    return true;
}

/* Each sequence is charged by its tokens of the step. */
static void charge(struct generator *r, int64_t elapsed_ns)
{
    int tokens = 0;
    for (int i = 0; i < r->width; i++)
        tokens += r->slots[i].tokens;
    for (int i = 0; i < r->width; i++)
        if (r->slots[i].g && tokens)
            r->slots[i].g->elapsed_ns += elapsed_ns * r->slots[i].tokens / tokens;
}

static bool step(struct generator *r, bool *more, struct error *err)
{
    int n_work;
    int64_t start = clock_ns();
    if (!refill(r, err) || !gather_work(r, &n_work, err))
        return false;
    *more = n_work > 0;
    struct logits_sink sink = { take_rows, r };
    if (!batch_run(r->e, r->work, n_work, &sink, err))
        return false;
    charge(r, clock_ns() - start);
    for (int i = 0; i < r->width; i++)
        if (r->slots[i].g && r->slots[i].g->finish != FINISH_NONE && !request_end(r, &r->slots[i], err))
            return false;
    return true;
}

/* ---- the whole ---- */

static bool generator_open(struct generator *r, struct error *err)
{
    struct engine *e = r->e;
    size_t w = (size_t)r->width, vocab = (size_t)e->c->vocab;
    r->slots = mem_new(w, sizeof *r->slots, err);
    r->work = mem_new(w, sizeof *r->work, err);
    r->order = mem_new(w, sizeof *r->order, err);
    r->tops = mem_new(HEAD_ROWS, sizeof *r->tops, err);
    if (!e->b.logits) {
        e->b.logits = mem_new_aligned(HEAD_ROWS * vocab, sizeof(float), err);
        e->buffer_bytes += e->b.logits ? HEAD_ROWS * vocab * sizeof(float) : 0;
    }
    return r->slots && r->work && r->order && r->tops && e->b.logits;
}

static void generator_close(struct generator *r)
{
    for (int i = 0; r->slots && i < r->width; i++)
        slot_close(&r->slots[i]);
    free(r->slots);
    free(r->work);
    free(r->order);
    free(r->tops);
}

bool engine_generate(struct engine *e, const struct generation_feed *feed, struct error *err)
{
    struct generator r = { .e = e, .feed = feed, .width = feed->width > 0 ? feed->width : DEFAULT_WIDTH };
    bool ok = generator_open(&r, err);
    for (bool more = true; ok && more;)
        ok = step(&r, &more, err);
    generator_close(&r);
    return ok;
}
