/* kld.c - eval_kld: two engines in lock-step on one stream of tokens, no logits file between them.
 *
 * Definitions (llama-perplexity's, eval-semantics 4.2): q is the base, p the other model, y the next token;
 * KLD = sum over the vocabulary of q (ln q - ln p); delta p = p(y) - q(y); percentiles by linear interpolation at
 * f (N - 1).  Unlike there nothing is rounded to 16 bits and nothing is clipped at 16 nats. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval.h"

enum { LOGITS_BYTES = 64 << 20, MAX_ROWS = 1024 };

struct scored {                     /* one token */
    double nll_base, nll, kld, delta_p;
    bool same_top;
};
struct kld_run {
    struct engine *base, *other;
    struct pool *pool;
    int vocab, ctx, max_rows;
    int32_t *window;
    float *q, *p;                   /* logits [max_rows][vocab]; the same where base is other */
    struct scored *scored;
    const int32_t *next;            /* of the rows at hand: the tokens to predict */
    struct scored *at;
};

/* ---- one row of logits ---- */

static void score_row(void *ctx, int i, int thread)
{
    struct kld_run *k = ctx;
    const float *q = k->q + (size_t)i * (size_t)k->vocab, *p = k->p + (size_t)i * (size_t)k->vocab;
    int32_t y = k->next[i];
    float first, second;
    (void)thread;
    double lq = logits_log_sum(q, k->vocab), lp = q == p ? lq : logits_log_sum(p, k->vocab), kld = 0;
    for (int v = 0; q != p && v < k->vocab; v++) {
        double ln_q = (double)q[v] - lq;
        kld += exp(ln_q) * (ln_q - ((double)p[v] - lp));
    }
    int top_q = logits_top(q, k->vocab, &first, &second), top_p = logits_top(p, k->vocab, &first, &second);
    double ln_q = (double)q[y] - lq, ln_p = (double)p[y] - lp;
    k->at[i] = (struct scored){ -ln_q, -ln_p, kld, exp(ln_p) - exp(ln_q), top_q == top_p };
}

/* ---- one window ---- */

static bool window_step(struct kld_run *k, struct seq *a, struct seq *b, int from, int n, bool logits, struct error *err)
{
    struct span sa = { a, k->window + from, n, logits ? 0 : n }, sb = { b, k->window + from, n, logits ? 0 : n };
    return engine_forward(k->base, &sa, 1, k->q, err) && (k->p == k->q || engine_forward(k->other, &sb, 1, k->p, err));
}

/* Positions ctx/2 .. ctx - 2 predict their next token. */
static bool window_score(struct kld_run *k, struct scored *out, struct error *err)
{
    struct seq *a = NULL, *b = NULL;
    int first = k->ctx / 2;
    bool ok = seq_open(&a, k->base, NULL, err) && (k->base == k->other || seq_open(&b, k->other, NULL, err)) &&
              window_step(k, a, b, 0, first, false, err);
    for (int at = first, n; ok && at < k->ctx - 1; at += n, out += n) {
        n = k->ctx - 1 - at < k->max_rows ? k->ctx - 1 - at : k->max_rows;
        ok = window_step(k, a, b, at, n, true, err);
        if (ok) {
            k->next = k->window + at + 1;
            k->at = out;
            pool_run(k->pool, n, score_row, k);
        }
    }
    seq_close(a);
    seq_close(b);
    return ok;
}

/* ---- statistics ---- */

struct moments {
    double mean, se;                /* se = sqrt(population variance / (N - 1)) */
};

static struct moments moments_of(const struct scored *s, int64_t n, double (*value)(const struct scored *))
{
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++)
        sum += value(&s[i]);
    double mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++)
        squares += (value(&s[i]) - mean) * (value(&s[i]) - mean);
    return (struct moments){ mean, n > 1 ? sqrt(squares / (double)n / (double)(n - 1)) : 0 };
}

static double get_nll_base(const struct scored *s)
{
    return s->nll_base;
}

static double get_nll(const struct scored *s)
{
    return s->nll;
}

static double get_log_ratio(const struct scored *s)
{
    return s->nll - s->nll_base;
}

static double get_kld(const struct scored *s)
{
    return s->kld;
}

static double get_delta_p(const struct scored *s)
{
    return s->delta_p;
}

static double get_delta_p_square(const struct scored *s)
{
    return s->delta_p * s->delta_p;
}

static double get_same_top(const struct scored *s)
{
    return s->same_top;
}

static double covariance(const struct scored *s, int64_t n, double mean_base, double mean)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (s[i].nll_base - mean_base) * (s[i].nll - mean);
    return sum / (double)n;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static bool percentiles(struct kld_result *out, struct error *err)
{
    static const double at[] = { 0, 0.01, 0.10, 0.50, 0.90, 0.99, 1 };
    size_t n = (size_t)out->tokens;
    float *sorted = mem_new(n, sizeof *sorted, err);
    if (!sorted)
        return false;
    memcpy(sorted, out->kld_per_token, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_value);
    for (size_t i = 0; i < ARRAY_LEN(at); i++) {
        double place = at[i] * (double)(n - 1), low = floor(place);
        size_t k = (size_t)low, next = k + 1 < n ? k + 1 : k;
        out->kld_percentiles[i] = (double)sorted[k] + (place - low) * ((double)sorted[next] - (double)sorted[k]);
    }
    free(sorted);
    return true;
}

static bool summarise(const struct scored *s, struct kld_result *out, struct error *err)
{
    int64_t n = out->tokens;
    struct moments base = moments_of(s, n, get_nll_base), other = moments_of(s, n, get_nll), ratio = moments_of(s, n, get_log_ratio);
    struct moments kld = moments_of(s, n, get_kld), dp = moments_of(s, n, get_delta_p), dp2 = moments_of(s, n, get_delta_p_square);
    struct moments top = moments_of(s, n, get_same_top);
    double spread = base.se * other.se * (double)(n - 1);
    out->ppl_base = exp(base.mean);
    out->ppl_base_se = out->ppl_base * base.se;
    out->ppl = exp(other.mean);
    out->ppl_se = out->ppl * other.se;
    out->log_ratio_mean = ratio.mean;
    out->log_ratio_se = ratio.se;
    out->correlation = spread > 0 ? covariance(s, n, base.mean, other.mean) / spread : 1;
    out->kld_mean = kld.mean;
    out->kld_se = kld.se;
    out->delta_p_mean = dp.mean;
    out->delta_p_se = dp.se;
    out->delta_p_rms = sqrt(dp2.mean);
    out->delta_p_rms_se = out->delta_p_rms > 0 ? dp2.se / (2 * out->delta_p_rms) : 0;
    out->same_top = top.mean;
    out->same_top_se = top.se;
    if (!(out->kld_per_token = mem_new((size_t)n, sizeof *out->kld_per_token, err)))
        return false;
    for (int64_t i = 0; i < n; i++)
        out->kld_per_token[i] = (float)s[i].kld;
    return percentiles(out, err);
}

/* ---- the stream ---- */

static bool open_run(struct kld_run *k, const struct model *m, int64_t tokens, struct error *err)
{
    k->vocab = m->config.vocab;
    size_t rows = (size_t)LOGITS_BYTES / ((size_t)k->vocab * sizeof *k->q);
    k->max_rows = rows < 1 ? 1 : rows > MAX_ROWS ? MAX_ROWS : (int)rows;
    size_t floats = (size_t)k->max_rows * (size_t)k->vocab;
    k->window = mem_new((size_t)k->ctx, sizeof *k->window, err);
    k->scored = mem_new((size_t)tokens, sizeof *k->scored, err);
    k->q = mem_new(floats, sizeof *k->q, err);
    k->p = k->base == k->other ? k->q : mem_new(floats, sizeof *k->p, err);
    return k->window && k->scored && k->q && k->p && pool_open(&k->pool, engine_threads(k->base), err);
}

static void close_run(struct kld_run *k)
{
    pool_close(k->pool);
    free(k->window);
    free(k->scored);
    if (k->p != k->q)
        free(k->p);
    free(k->q);
}

/* Token i of the stream, which begins with a BOS of its own when added is 1. */
static void fill_window(struct kld_run *k, const int32_t *ids, int64_t chunk, int bos, int added)
{
    for (int i = 0; i < k->ctx; i++) {
        int64_t at = chunk * k->ctx + i - added;
        k->window[i] = i == 0 && bos >= 0 ? bos : ids[at];
    }
}

bool eval_kld(struct engine *base, struct engine *other, const struct model *m, const int32_t *ids, size_t n, int ctx,
              struct kld_result *out, struct error *err)
{
    *out = (struct kld_result){ 0 };
    int bos = m->tokenizer ? tokenizer_bos(m->tokenizer) : m->config.bos;
    int added = bos >= 0 && (!n || ids[0] != bos);
    int64_t total = (int64_t)n + added, per_chunk = ctx - 1 - ctx / 2;
    if (ctx < 4 || (m->config.context > 0 && ctx > m->config.context))
        return fail(err, STATUS_INPUT, "%s: windows of %d tokens, expected 4 to the model's context of %d", m->path, ctx, m->config.context);
    if (total < ctx)
        return fail(err, STATUS_INPUT, "%s: the text has %lld tokens, expected at least one window of %d", m->path, (long long)total, ctx);
    out->chunks = total / ctx;
    out->tokens = out->chunks * per_chunk;
    struct kld_run k = { .base = base, .other = other, .ctx = ctx };
    bool ok = open_run(&k, m, out->tokens, err);
    for (int64_t c = 0; ok && c < out->chunks; c++) {
        fill_window(&k, ids, c, bos, added);
        ok = window_score(&k, k.scored + c * per_chunk, err);
    }
    ok = ok && summarise(k.scored, out, err);
    close_run(&k);
    if (!ok) {
        free(out->kld_per_token);
        *out = (struct kld_result){ 0 };
    }
    return ok;
}
