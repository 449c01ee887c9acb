/* engine.c - opening, closing, buffers, and the two ways work is handed out: matrices and rows. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* ---- buffers ---- */

struct sizes {                  /* the widest of each thing over the layers */
    size_t q, kv, head, ffn, mid, experts, used;
};

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

static struct sizes sizes_of(const struct model_config *c)
{
    struct sizes s = { 0 };
    for (int i = 0; i < c->n_layers; i++) {
        const struct layer_config *l = &c->layers[i];
        s.head = most(s.head, (size_t)l->head_size);
        s.q = most(s.q, (size_t)c->n_heads * (size_t)l->head_size);
        s.kv = most(s.kv, (size_t)l->n_kv_heads * (size_t)l->head_size);
        s.ffn = most(s.ffn, most((size_t)l->ffn_size, 2 * (size_t)l->expert_ffn_size));
        s.mid = most(s.mid, most((size_t)l->ffn_size, (size_t)l->expert_ffn_size));
        s.experts = most(s.experts, (size_t)l->n_experts);
        s.used = most(s.used, (size_t)l->n_experts_used);
    }
    s.ffn = most(s.ffn, (size_t)c->ple_size);
    s.mid = most(s.mid, (size_t)c->ple_size);
    return s;
}

struct want {
    void *at;                   /* a pointer to the pointer */
    size_t count, size;
};

static bool allocate(struct engine *e, const struct want *wants, size_t n, struct error *err)
{
    for (size_t i = 0; i < n; i++) {
        void *p = wants[i].count ? mem_new_aligned(wants[i].count, wants[i].size, err) : NULL;
        if (wants[i].count && !p)
            return false;
        memcpy(wants[i].at, &p, sizeof p);
        e->buffer_bytes += wants[i].count * wants[i].size;
    }
    return true;
}

static size_t rope_floats(struct engine *e, size_t rows)
{
    size_t at = 0;
    for (int i = 0; i < e->c->n_rope; i++) {
        e->b.rope_at[i] = at;
        at += rows * (size_t)e->c->rope[i].head_size;
    }
    return at;
}

static bool buffers_open(struct engine *e, struct error *err)
{
    const struct model_config *c = e->c;
    struct buffers *b = &e->b;
    struct sizes s = sizes_of(c);
    size_t n = (size_t)e->batch_tokens, d = (size_t)c->hidden, f = sizeof(float);
    bool gemma_moe = false;
    for (int i = 0; i < c->n_layers; i++)
        gemma_moe |= c->layers[i].moe == MOE_GEMMA4;
    const struct want wants[] = {
        { &b->x, n * d, f },        { &b->u, n * d, f },        { &b->y, n * d, f },
        { &b->q, n * s.q, f },      { &b->o, n * s.q, f },      { &b->k, n * s.kv, f },     { &b->v, n * s.kv, f },
        { &b->gate, n * s.ffn, f }, { &b->up, n * s.mid, f },
        { &b->ple, n * (size_t)c->n_layers * (size_t)c->ple_size, f },
        { &b->u2, gemma_moe ? n * d : 0, f },                   { &b->f, gemma_moe ? n * d : 0, f },
        { &b->acc, s.experts ? n * d : 0, f },                  { &b->router, n * s.experts, f },
        { &b->chosen, n * s.used, sizeof(int) },                { &b->chosen_weight, n * s.used, f },
        { &b->expert_rows, n * s.used, sizeof(int) },           { &b->expert_weights, n * s.used, f },
        { &b->expert_first, s.experts + 1, sizeof(int) },
        { &b->wanted, n * d, f },   { &b->cos_sin, rope_floats(e, n), f },
    };
    if (!allocate(e, wants, ARRAY_LEN(wants), err))
        return false;
    int threads = e->n_scratch = pool_threads(e->pool);
    e->scratch = mem_new((size_t)threads, sizeof *e->scratch, err);
    for (int i = 0; e->scratch && i < threads; i++) {
        const struct want rows[] = {
            { &e->scratch[i].f, s.head, f },
            { &e->scratch[i].queries, QUERIES_A_JOB * (size_t)c->n_heads, sizeof(struct attention_query) },
            { &e->scratch[i].wide, (size_t)c->n_layers * (size_t)c->ple_size, f },
        };
        if (!allocate(e, rows, ARRAY_LEN(rows), err))
            return false;
    }
    return e->scratch && acts_open(&e->a_in, e->batch_tokens, (int)most(d, s.q), e->act, err) &&
           acts_open(&e->a_mid, e->batch_tokens, (int)most(s.mid, 1), e->act, err);
}

static void buffers_close(struct engine *e)
{
    struct buffers *b = &e->b;
    void *all[] = { b->x, b->u, b->u2, b->y, b->acc, b->f, b->q, b->o, b->k, b->v, b->gate, b->up, b->ple, b->router,
                    b->chosen, b->chosen_weight, b->expert_rows, b->expert_weights, b->expert_first, b->wanted,
                    b->logits, b->cos_sin };
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        free(all[i]);
    for (int i = 0; e->scratch && i < e->n_scratch; i++) {
        free(e->scratch[i].f);
        free(e->scratch[i].queries);
        free(e->scratch[i].wide);
        free(e->scratch[i].runs);
    }
    free(e->scratch);
    acts_close(&e->a_in);
    acts_close(&e->a_mid);
}

bool scratch_runs(struct engine *e, size_t n, struct error *err)
{
    for (int i = 0; i < e->n_scratch; i++) {
        size_t before = e->scratch[i].runs_cap;
        if (!mem_grow(&e->scratch[i].runs, &e->scratch[i].runs_cap, n, sizeof *e->scratch[i].runs, err))
            return false;
        e->buffer_bytes += (e->scratch[i].runs_cap - before) * sizeof *e->scratch[i].runs;
    }
    return true;
}

/* ---- opening ---- */

static bool config_check(const struct model *m, struct error *err)
{
    const struct model_config *c = &m->config;
    size_t tables = ARRAY_LEN(((struct buffers *)0)->rope_at);
    if (c->n_rope < 0 || (size_t)c->n_rope > tables)
        return fail(err, STATUS_UNSUPPORTED, "%s: %d rope tables, at most %zu", m->path, c->n_rope, tables);
    for (int i = 0; i < c->n_layers; i++) {
        const struct layer_config *l = &c->layers[i];
        if (l->n_kv_heads < 1 || c->n_heads % l->n_kv_heads)
            return fail(err, STATUS_FORMAT, "%s: layer %d: %d query heads do not divide among %d K/V heads", m->path, i,
                        c->n_heads, l->n_kv_heads);
        if (l->rope && (l->rope_table < 0 || l->rope_table >= c->n_rope ||
                        c->rope[l->rope_table].head_size != l->head_size))
            return fail(err, STATUS_FORMAT, "%s: layer %d: no rope table for head size %d", m->path, i, l->head_size);
        if (l->moe != MOE_NONE && (l->n_experts_used < 1 || l->n_experts_used > l->n_experts))
            return fail(err, STATUS_FORMAT, "%s: layer %d uses %d of %d experts", m->path, i, l->n_experts_used,
                        l->n_experts);
    }
    return true;
}

/* Repacked weights are a second copy.  Where that does not fit, weights are multiplied from the mapping; what the page
 * cache cannot hold is read again for each micro-batch, so each takes more tokens.  Beside the weights (and an eighth for
 * buffers) tokenizer and rows of logits take up to 2 KiB for each token of the vocabulary. */
static void fit_memory(struct engine *e)
{
    uint64_t weights = 0, others = (uint64_t)e->c->vocab * 2048, have = memory_available();
    for (int i = 0; i < e->m->n_tensors; i++)
        if (strcmp(e->m->tensors[i].name, "per_layer_token_embd.weight") != 0)      /* a table: never packed, rows are read */
            weights += e->m->tensors[i].bytes;
    if (!have || weights / 8 * 9 + others < have)
        return;
    e->in_place = true;
    e->batch_tokens = STREAM_BATCH_TOKENS;
}

static bool open_parts(struct engine *e, const struct engine_options *o, struct error *err)
{
    e->k = kernels_find(o->kernels, err);
    return e->k && config_check(e->m, err) && pool_open(&e->pool, o->threads, err) && weights_open(e, err) &&
           buffers_open(e, err) && batch_open(e, err);
}

bool engine_open(struct engine **out, const struct model *m, const struct engine_options *o, struct error *err)
{
    *out = NULL;
    struct engine *e = mem_new(1, sizeof *e, err);
    if (!e)
        return false;
    e->m = m;
    e->c = &m->config;
    e->act = o->act;
    e->in_place = o->in_place;
    e->batch_tokens = DEFAULT_BATCH_TOKENS;
    fit_memory(e);
    e->batch_tokens = o->batch_tokens > 0 ? o->batch_tokens : e->batch_tokens;
    if (!open_parts(e, o, err)) {
        engine_close(e);
        return fail_in(err, "engine for %s", m->path);
    }
    *out = e;
    return true;
}

void engine_close(struct engine *e)
{
    if (!e)
        return;
    stream_close(e);
    batch_close(e);
    buffers_close(e);
    kv_free_all(e);
    weights_close(e);
    pool_close(e->pool);
    free(e);
}

const char *engine_kernels(const struct engine *e)
{
    return kernels_name(e->k);
}

int engine_threads(const struct engine *e)
{
    return pool_threads(e->pool);
}

void engine_use_threads(struct engine *e, int n)
{
    pool_use(e->pool, n);
}

uint64_t engine_bytes(const struct engine *e)
{
    return weights_bytes(e) + e->buffer_bytes + e->kv_bytes + e->a_in.packed_bytes + e->a_mid.packed_bytes;
}

/* ---- handing out work ---- */

struct row_job {
    struct engine *e;
    int n, rows_a_job;
    void (*job)(struct engine *e, int row, int thread);
};

static void row_range(void *ctx, int i, int thread)
{
    struct row_job *j = ctx;
    int end = (i + 1) * j->rows_a_job < j->n ? (i + 1) * j->rows_a_job : j->n;
    for (int row = i * j->rows_a_job; row < end; row++)
        j->job(j->e, row, thread);
}

void rows_run(struct engine *e, int n, size_t work, void (*job)(struct engine *e, int row, int thread))
{
    /* Waking the others costs about as much as touching this many floats. */
    const size_t worth_waking = 1 << 14;
    struct row_job j = { e, n, n, job };
    int threads = pool_threads(e->pool);
    if (threads > 1 && (size_t)n * work >= worth_waking)
        j.rows_a_job = (n + 4 * threads - 1) / (4 * threads);
    if (n > 0)
        pool_run(e->pool, (n + j.rows_a_job - 1) / j.rows_a_job, row_range, &j);
}

struct pool *pool_for(const struct engine *e, double multiplications)
{
    /* What one thread does in the time that waking the others takes. */
    const double worth_waking = 1 << 18;
    return multiplications < worth_waking ? NULL : e->pool;
}

/* A tap wants its rows side by side; y is idle whenever rows are picked by a list. */
void show(struct engine *e, const struct matrix *w, int mat, const struct acts *a, const int *rows, int n)
{
    if (!e->tap || n == 0)
        return;
    const float *x = a->f32;
    size_t ld = a->ld;
    for (int i = 0; rows && i < n; i++)
        memcpy(e->b.y + (size_t)i * (size_t)a->cols, x + (size_t)rows[i] * ld, (size_t)a->cols * sizeof *x);
    e->tap->see(e->tap->ctx, w->t->name, w->t->mats > 1 ? mat : -1, rows ? e->b.y : x, n, a->cols,
                rows ? (size_t)a->cols : ld);
}

void apply(struct engine *e, const struct matrix *w, int mat, struct acts *a, const int *rows, int n, float *y,
           size_t ldy)
{
    if (n == 0)
        return;
    if (!e->batch.part || e->batch.part->to == STEP_END)
        show(e, w, mat, a, rows, n);
    matrix_apply(w, mat, a, rows, n, y, ldy, pool_for(e, (double)n * (double)w->t->rows * (double)w->t->cols));
}

void apply_each(struct engine *e, const struct matrix_out *out, int n_out, struct acts *a, int n)
{
    double work = 0;
    for (int i = 0; i < n_out; i++) {
        if (!e->batch.part || e->batch.part->to == STEP_END)
            show(e, out[i].w, 0, a, NULL, n);
        work += (double)n * (double)out[i].w->t->rows * (double)out[i].w->t->cols;
    }
    matrix_apply_each(out, n_out, a, n, pool_for(e, work));
}

void engine_set_tap(struct engine *e, const struct engine_tap *tap)
{
    e->tap = tap;
}
