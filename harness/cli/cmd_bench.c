/* bench: tokens/s of prefill, decode, batches and whole tasks, beside the peaks of this machine that bound them. */
#include "cli/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what a token costs ---- */

struct cost {
    double matrix_weights, head_weights;        /* multiplied for each token; for each row of logits */
    double matrix_bytes, head_bytes;            /* read for one decoded token */
    bool integer;
};

static struct cost cost_of(const struct model *m)
{
    struct cost w = { 0 };
    const char *head = m->config.tied_output ? "token_embd.weight" : "output.weight";
    for (int i = 0; i < m->n_tensors; i++) {
        const struct tensor *t = &m->tensors[i];
        double weights = (double)t->cols * (double)t->rows, bytes = (double)t->bytes / (double)t->mats, used = 1;
        if ((!t->data && !t->parts) || t->rows <= 1 || strcmp(t->name, "per_layer_token_embd.weight") == 0)
            continue;
        if (strcmp(t->name, head) == 0) {
            w.head_weights = weights;
            w.head_bytes = bytes;
            continue;
        }
        if (strcmp(t->name, "token_embd.weight") == 0)
            continue;
        for (int l = 0; l < m->config.n_layers && t->mats > 1; l++)
            used = m->config.layers[l].n_experts == t->mats ? m->config.layers[l].n_experts_used : used;
        w.matrix_weights += used * weights;
        w.matrix_bytes += used * bytes;
        w.integer |= formats[t->format].int_block > 0;
    }
    return w;
}

/* ---- one work, timed ---- */

enum { DECODE_STEPS = 16, DECODE_START = 32, WIDEST = 32, ITEMS = 32, ITEM_TOKENS = 64, ITEM_PREFIX = 256, LONGEST = 2048,
       MOST_REPEATS = 64, PEAK_WINDOWS = 16 };

struct bench {
    const struct settings *s;
    const struct model *m;
    struct engine *e;
    struct cost cost;
    struct peak_meter *meter;
    enum peak unit;             /* of the matrix products */
    float *logits;              /* [WIDEST][vocab] */
    int32_t *ids;               /* random, [longest prefill + WIDEST] */
    struct bench_results results;
};

struct timed {                  /* what a work did */
    double seconds, tokens, items, rows /* of logits */, passes /* readings of all matrices */;
};

/* n tokens in a fresh sequence, logits of the last. */
static bool prefill(struct bench *b, int n, struct timed *t, struct error *err)
{
    struct seq *seq = NULL;
    bool ok = seq_open(&seq, b->e, NULL, err);
    struct span span = { seq, b->ids, n, n - 1 };
    int64_t start = clock_ns();
    ok = ok && engine_forward(b->e, &span, 1, b->logits, err);
    *t = (struct timed){ .seconds = (double)(clock_ns() - start) / 1e9, .tokens = n, .rows = 1, .passes = (n + 511) / 512 };
    seq_close(seq);
    return ok;
}

static bool prefill_one_thread(struct bench *b, int n, struct timed *t, struct error *err)
{
    int threads = engine_threads(b->e);
    engine_use_threads(b->e, 1);
    bool ok = prefill(b, n, t, err);
    engine_use_threads(b->e, threads);
    return ok;
}

static bool decode_steps(struct bench *b, struct seq **seqs, int width, struct timed *t, struct error *err)
{
    struct span spans[WIDEST];
    for (int i = 0; i < width; i++)
        spans[i] = (struct span){ seqs[i], b->ids, DECODE_START, DECODE_START - 1 };
    if (!engine_forward(b->e, spans, width, b->logits, err))
        return false;
    int64_t start = clock_ns();
    for (int step = 0; step < DECODE_STEPS; step++) {
        for (int i = 0; i < width; i++)
            spans[i] = (struct span){ seqs[i], b->ids + step + i, 1, 0 };
        if (!engine_forward(b->e, spans, width, b->logits, err))
            return false;
    }
    double n = (double)width * DECODE_STEPS;
    *t = (struct timed){ .seconds = (double)(clock_ns() - start) / 1e9, .tokens = n, .rows = n, .passes = DECODE_STEPS };
    return true;
}

static bool decode(struct bench *b, int width, struct timed *t, struct error *err)
{
    struct seq *seqs[WIDEST] = { 0 };
    bool ok = true;
    for (int i = 0; ok && i < width; i++)
        ok = seq_open(&seqs[i], b->e, NULL, err);
    ok = ok && decode_steps(b, seqs, width, t, err);
    for (int i = 0; i < width; i++)
        seq_close(seqs[i]);
    return ok;
}

/* Multiple choice by letter: a prefix computed once, items on it, one row of logits each. */
static bool choice_items(struct bench *b, int items, struct timed *t, struct error *err)
{
    struct seq *prefix = NULL, *seqs[ITEMS] = { 0 };
    struct span spans[ITEMS], first = { NULL, b->ids, ITEM_PREFIX, ITEM_PREFIX };
    int64_t start = clock_ns();
    bool ok = seq_open(&prefix, b->e, NULL, err);
    first.seq = prefix;
    ok = ok && engine_forward(b->e, &first, 1, b->logits, err);
    for (int i = 0; ok && i < items; i++) {
        ok = seq_open(&seqs[i], b->e, prefix, err);
        spans[i] = (struct span){ seqs[i], b->ids + ITEM_PREFIX + i, ITEM_TOKENS, ITEM_TOKENS - 1 };
    }
    ok = ok && engine_forward(b->e, spans, items, b->logits, err);
    double tokens = ITEM_PREFIX + (double)items * ITEM_TOKENS;
    *t = (struct timed){ .seconds = (double)(clock_ns() - start) / 1e9, .tokens = tokens, .items = items, .rows = items,
                         .passes = tokens / 512 };
    for (int i = 0; i < ITEMS; i++)
        seq_close(seqs[i]);
    seq_close(prefix);
    return ok;
}

/* ---- rows ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static struct bench_row *row_new(struct bench *b, const char *work, struct error *err)
{
    struct bench_results *r = &b->results;
    if (!mem_grow(&r->rows, &r->cap, r->n + 1, sizeof *r->rows, err))
        return NULL;
    struct bench_row *row = &r->rows[r->n++];
    *row = (struct bench_row){ 0 };
    snprintf(row->model, sizeof row->model, "%s", b->m->label);
    snprintf(row->work, sizeof row->work, "%s", work);
    return row;
}

struct work_kind {
    const char *group, *name;   /* group: the word of --only */
    int n;
    bool (*run)(struct bench *b, int n, struct timed *t, struct error *err);
    int tokens;                 /* context it needs */
    bool one_thread;            /* compared with a peak of one thread */
};

/* Operations and bytes of t, each as a share of its peak; the larger is what bounds. */
static double share_of(const struct bench *b, const struct timed *t, const double *peaks, const char **bound)
{
    double ops = 2 * (b->cost.matrix_weights * t->tokens + b->cost.head_weights * t->rows) / 1e9 / t->seconds / peaks[b->unit];
    double read = t->passes * (b->cost.matrix_bytes + b->cost.head_bytes) / 1e9 / t->seconds / peaks[PEAK_READ];
    *bound = peak_names[read > ops ? PEAK_READ : b->unit];
    return read > ops ? read : ops;
}

/* Mean of the peaks before and after: what the machine gave meanwhile. */
static bool time_once(struct bench *b, const struct work_kind *w, struct timed *t, double *share, const char **bound, struct error *err)
{
    enum peak which[] = { b->unit, PEAK_READ };
    double peaks[PEAK_COUNT] = { 0 };
    for (int i = 0; i < 2; i++)
        peaks[which[i]] = peak_rate(b->meter, which[i], w->one_thread, PEAK_WINDOWS) / 2;
    if (!w->run(b, w->n, t, err))
        return false;
    for (int i = 0; i < 2; i++)
        peaks[which[i]] += peak_rate(b->meter, which[i], w->one_thread, PEAK_WINDOWS) / 2;
    *share = share_of(b, t, peaks, bound);
    return true;
}

static bool bench_work(struct bench *b, const struct work_kind *w, struct error *err)
{
    double rates[MOST_REPEATS], shares[MOST_REPEATS], items = 0;
    int repeats = b->s->repeats < MOST_REPEATS ? (int)b->s->repeats : MOST_REPEATS;
    const char *bound = "";
    if (w->tokens > b->m->config.context)
        return true;
    for (int r = 0; r < repeats; r++) {
        struct timed t;
        if (!time_once(b, w, &t, &shares[r], &bound, err))
            return false;
        rates[r] = t.tokens / t.seconds;
        items = t.items / t.tokens;
    }
    struct bench_row *row = row_new(b, w->name, err);
    if (!row)
        return false;
    row->tokens_s = median(rates, repeats);
    row->items_s = items * row->tokens_s;
    row->share = median(shares, repeats);
    snprintf(row->bound, sizeof row->bound, "%s", bound);
    return true;
}

static bool chosen(const struct settings *s, const char *group)
{
    for (size_t i = 0; i < s->only.n; i++)
        if (strcmp(s->only.words[i], group) == 0)
            return true;
    return s->only.n == 0;
}

static const struct work_kind kinds[] = {
    { "prefill", "prefill 64",           64,   prefill, 64, false },
    { "prefill", "prefill 512",          512,  prefill, 512, false },
    { "prefill", "prefill 2048",         2048, prefill, 2048, false },
    { "threads", "prefill 512, 1 thread", 512, prefill_one_thread, 512, true },
    { "decode",  "decode",               1,    decode, DECODE_START + DECODE_STEPS, false },
    { "batches", "decode x 4",           4,    decode, DECODE_START + DECODE_STEPS, false },
    { "batches", "decode x 16",          16,   decode, DECODE_START + DECODE_STEPS, false },
    { "batches", "decode x 32",          32,   decode, DECODE_START + DECODE_STEPS, false },
    { "items",   "choice items",         ITEMS, choice_items, ITEM_PREFIX + ITEM_TOKENS, false },
};

static bool bench_kinds(struct bench *b, struct error *err)
{
    int length = (int)b->s->prompt_tokens;
    char name[32];
    snprintf(name, sizeof name, "prefill %d", length);
    const struct work_kind own = { "prefill", name, length, prefill, length, false };
    if (length && !bench_work(b, &own, err))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (chosen(b->s, kinds[i].group) && !(length && kinds[i].run == prefill) && !bench_work(b, &kinds[i], err))
            return false;
    return true;
}

/* ---- real tasks ---- */

struct counted {
    int items;
    int64_t prompt_tokens, new_tokens;
};

static bool count_item(void *ctx, const struct item_row *row, struct error *err)
{
    struct counted *c = ctx;
    (void)row;
    (void)err;
    c->items++;
    return true;
}

static void count_tokens(void *ctx, int done, int total, int64_t prompt_tokens, int64_t new_tokens)
{
    struct counted *c = ctx;
    (void)done;
    (void)total;
    c->prompt_tokens = prompt_tokens;
    c->new_tokens = new_tokens;
}

/* The task as `run` asks it, nothing stored; tokens are those computed, a shared prefix once. */
static bool bench_task(struct bench *b, const char *name, struct error *err)
{
    struct task_options to;
    struct task *task = NULL;
    struct counted c = { 0 };
    struct eval_options eo = { .share_prefixes = true };
    struct eval_sink sink = { .item = count_item, .progress = count_tokens, .ctx = &c };
    if (!task_options_of(b->s, &to, err) || !task_open(&task, name, &to, err))
        return false;
    double peak = peak_rate(b->meter, b->unit, 0, PEAK_WINDOWS) / 2;
    int64_t start = clock_ns();
    bool ok = eval_run(b->e, b->m, task, &eo, &sink, err);
    struct timed t = { .seconds = (double)(clock_ns() - start) / 1e9, .tokens = (double)(c.prompt_tokens + c.new_tokens), .items = c.items };
    peak += peak_rate(b->meter, b->unit, 0, PEAK_WINDOWS) / 2;
    struct bench_row *row = ok ? row_new(b, task_name(task), err) : NULL;
    if (row) {
        row->tokens_s = t.tokens / t.seconds;
        row->items_s = t.items / t.seconds;
        row->share = 2 * b->cost.matrix_weights * row->tokens_s / 1e9 / peak;
        snprintf(row->bound, sizeof row->bound, "%s", peak_names[b->unit]);
        note(b->s, "%s on %s: %d items, %.0f tokens computed", b->m->label, task_name(task), c.items, t.tokens);
    }
    task_close(task);
    return row != NULL;
}

/* ---- models ---- */

static bool bench_all(struct bench *b, struct error *err)
{
    size_t vocab = (size_t)b->m->config.vocab;
    int longest = b->s->prompt_tokens > LONGEST ? (int)b->s->prompt_tokens : LONGEST;
    struct timed warm_up;
    b->logits = mem_new(WIDEST * vocab, sizeof *b->logits, err);
    b->ids = mem_new((size_t)longest + WIDEST, sizeof *b->ids, err);
    if (!b->logits || !b->ids)
        return false;
    for (int i = 0; i < longest + WIDEST; i++)
        b->ids[i] = (int32_t)(random_at(1, (uint64_t)i) % vocab);
    bool ok = prefill(b, b->m->config.context < 32 ? b->m->config.context : 32, &warm_up, err) && bench_kinds(b, err);
    for (size_t i = 0; ok && i < b->s->tasks.n; i++)
        ok = bench_task(b, b->s->tasks.words[i], err);
    return ok;
}

static bool bench_model(struct bench *b, struct model *m, struct error *err)
{
    struct engine_options eo;
    b->m = m;
    b->cost = cost_of(m);
    int64_t start = clock_ns();
    bool ok = engine_options_of(b->s, &eo, err) && engine_open(&b->e, m, &eo, err);
    if (ok) {
        b->unit = !b->cost.integer || eo.act == ACT_F32 ? PEAK_F32 : eo.act == ACT_Q8 ? PEAK_INT8 : PEAK_INT16;
        b->results.facts.kernels = engine_kernels(b->e);
        b->results.facts.threads = engine_threads(b->e);
        note(b->s, "%s: ready in %.2f s, %s kernels, %d threads, %.2f GB", m->label, (double)(clock_ns() - start) / 1e9,
             engine_kernels(b->e), engine_threads(b->e), (double)engine_bytes(b->e) / 1e9);
        ok = bench_all(b, err);
    }
    engine_close(b->e);
    free(b->logits);
    free(b->ids);
    b->e = NULL;
    b->logits = NULL;
    b->ids = NULL;
    return ok;
}

static bool bench_arguments(struct bench *b, struct error *err)
{
    struct model m = { 0 };
    bool ok = true;
    if (b->s->shape) {
        ok = bench_shape_open(&m, b->s, err) && bench_model(b, &m, err);
        bench_shape_close(&m);
    }
    for (size_t i = 0; ok && i < b->s->rest.n; i++) {
        ok = model_open(&m, b->s->rest.words[i], b->s->tasks.n > 0, err) && bench_model(b, &m, err);
        model_close(&m);
    }
    return ok;
}

static void bench_peaks(struct bench *b)
{
    for (int one = 0; one < 2; one++) {
        double *p = b->results.facts.peaks[one];
        for (int what = 0; what < PEAK_COUNT; what++)
            p[what] = peak_rate(b->meter, (enum peak)what, one, 2 * PEAK_WINDOWS);
        note(b->s, "peaks of this machine, %s: int8 %.0f GOP/s, int16 %.0f GOP/s, f32 %.0f GFLOP/s, read %.1f GB/s",
             one ? "1 thread" : "all threads", p[PEAK_INT8], p[PEAK_INT16], p[PEAK_F32], p[PEAK_READ]);
    }
}

static bool check_groups(const struct settings *s, struct error *err)
{
    for (size_t i = 0; i < s->only.n; i++) {
        const char *names[ARRAY_LEN(kinds)], *near;
        bool known = false;
        for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
            names[k] = kinds[k].group;
            known |= strcmp(names[k], s->only.words[i]) == 0;
        }
        near = nearest_word(s->only.words[i], names, ARRAY_LEN(names));
        if (!known)
            return fail(err, STATUS_USAGE, "bench: --only %s: expected prefill, threads, decode, batches or items%s%s%s", s->only.words[i],
                        near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    }
    return true;
}

int cmd_bench(const struct settings *s, struct error *err)
{
    struct bench b = { .s = s, .results.facts.act = s->act };
    if (!s->shape && !s->rest.n)
        return fail(err, STATUS_USAGE, "bench: give MODEL.. or --shape NAME[:RECIPE] (`qdelta list models`)"), EXIT_USAGE;
    if (s->tasks.n && s->shape)
        return fail(err, STATUS_USAGE, "bench: --task needs text, and a shape has no tokenizer"), EXIT_USAGE;
    if (!check_groups(s, err))
        return EXIT_USAGE;
    bench_machine(&b.results.facts);
    bool ok = peak_open(&b.meter, (int)s->threads, s->kernels, err);
    if (ok)
        bench_peaks(&b);
    ok = ok && bench_arguments(&b, err) && bench_print(s, &b.results, err);
    peak_close(b.meter);
    free(b.results.rows);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
