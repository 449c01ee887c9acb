/* awq.c - activation-aware scaling: columns that meet large inputs are made larger before rounding, and the producer
 * of those inputs smaller by as much (Lin et al. 2023; quantization.md 3).
 *
 * A candidate is judged by the error of the matrices' outputs, e' H e for the errors e of their weights on the grid that
 * will be written, H being the second moments of all calibration inputs within each group of columns (errors of
 * different groups are as good as independent).
 *
 * Which producers can be divided follows from the architecture: a norm's weight always, the rows of up (the up
 * branch is linear), the rows of v only where values go to o one to one and unnormalised.  Every fold is proven on
 * logits before its layer is rounded, by the stream of a few tokens that goes on from there through the layers
 * to come: nothing behind is needed again, so a layer is written as soon as it is done. */
#include "awq.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate.h"
#include "clip.h"
#include "hf.h"
#include "solve.h"

enum { MOST_CONSUMERS = 6, PROOF_TOKENS = 32 };

static const struct {
    const char *name, *producer;
    bool rows;                          /* the producer's rows are divided, else a norm's elements */
    const char *leader;                 /* whose inputs tell the sizes */
    const char *consumers[MOST_CONSUMERS];
} folds[] = {
    { "attn_norm -> q, k, v", "attn_norm.weight", false, "attn_q.weight", { "attn_q.weight", "attn_k.weight", "attn_v.weight" } },
    { "v -> o", "attn_v.weight", true, "attn_output.weight", { "attn_output.weight" } },
    { "ffn_norm -> gate, up", "ffn_norm.weight", false, "ffn_gate.weight", { "ffn_gate.weight", "ffn_up.weight" } },
    { "ffn_norm -> experts", "ffn_norm.weight", false, "ffn_gate_exps.weight", { "ffn_gate_inp.weight", "ffn_gate_exps.weight", "ffn_up_exps.weight" } },
    { "pre_ffw_norm_2 -> experts", "pre_ffw_norm_2.weight", false, "ffn_gate_up_exps.weight", { "ffn_gate_up_exps.weight" } },
    { "pre_ffw_norm_2 -> experts", "pre_ffw_norm_2.weight", false, "ffn_gate_exps.weight", { "ffn_gate_exps.weight", "ffn_up_exps.weight" } },
    { "up -> down", "ffn_up.weight", true, "ffn_down.weight", { "ffn_down.weight" } },
};

/* Where the rows of one table fit two architectures: Gemma 4's dense branch shares no norm with its experts. */
static bool fold_applies(size_t f, const struct model_config *c, int layer)
{
    const struct layer_config *l = &c->layers[layer];
    bool gemma4_norm = strcmp(folds[f].producer, "pre_ffw_norm_2.weight") == 0;
    if (strcmp(folds[f].name, "v -> o") == 0)
        return l->n_kv_heads == c->n_heads && !c->v_norm && !c->qkv_bias && !l->v_from_k && l->kv_source == layer;
    if (strstr(folds[f].name, "experts"))
        return gemma4_norm == (l->moe == MOE_GEMMA4);
    return true;
}

/* ---- one fold at work ---- */

struct work {
    struct job *job;
    struct pass *pass;
    struct proof *proof;
    int layer;
    size_t fold;
    struct part *producer, *leader, *consumers[MOST_CONSUMERS];
    int n_consumers, n;         /* columns of the consumers */
    struct layer_stats *stats;
    int ratios;                 /* candidates beside the identity */
    const struct input_stats *inputs;   /* the leader's */
    float *weight;              /* mean of |w| / group's largest */
    float *scale;               /* the candidate at hand, or the chosen one */
    float *dense[MOST_CONSUMERS + 1];   /* replacements in use */
};

/* What the inputs of a layer's matrices look like. */
struct input_stats {
    struct part *part;
    double *abs_sum, *square_sum;
    float *input, *square;      /* means of |x| and x^2 */
    struct moments moments;
    int64_t tokens;
};
struct layer_stats {
    int ratios;
    double damp;
    bool clip;
    int64_t cut, groups;        /* of the whole model so far */
    struct pool *pool;
    struct input_stats *all;
    int n;
    float **kept;               /* dense tensors that the engine uses to the end of the layer */
    size_t n_kept, kept_cap;
};

static struct part *layer_part(const struct job *j, int layer, const char *suffix)
{
    char name[96];
    snprintf(name, sizeof name, "blk.%d.%s", layer, suffix);
    return job_part(j, name);
}

/* The part whose inputs are p's too, or p. */
static const struct part *leader_of(const struct job *j, const struct part *p)
{
    const char *dot = strchr(p->source->name + 4, '.');
    for (size_t f = 0; f < ARRAY_LEN(folds); f++)
        for (int k = 0; k < MOST_CONSUMERS && folds[f].consumers[k]; k++) {
            const struct part *leader = strcmp(dot + 1, folds[f].consumers[k]) == 0 ? layer_part(j, p->layer, folds[f].leader) : NULL;
            if (leader && leader->matrix)
                return leader;
        }
    return p;
}

static struct input_stats *stats_of(const struct layer_stats *s, const struct job *j, const struct part *p)
{
    const struct part *leader = leader_of(j, p);
    for (int i = 0; i < s->n; i++)
        if (s->all[i].part == leader)
            return &s->all[i];
    return NULL;
}

static void see(void *ctx, const char *name, int expert, const float *x, int n, int64_t cols, size_t ld)
{
    struct layer_stats *s = ctx;
    (void)expert;               /* the experts of a layer share their input's scale */
    for (int i = 0; i < s->n; i++) {
        struct input_stats *t = &s->all[i];
        if (strcmp(t->part->source->name, name) || cols != t->part->source->cols)
            continue;
        for (int r = 0; r < n; r++)
            for (int64_t c = 0; c < cols; c++) {
                double v = (double)x[(size_t)r * ld + (size_t)c];
                t->abs_sum[c] += fabs(v);
                t->square_sum[c] += v * v;
            }
        moments_add(&t->moments, s->pool, x, n, ld);
        t->tokens += n;
        return;
    }
}

/* Weight statistics of the consumers: how large a column is against its group, by |w|. */
static bool weigh(struct work *w, struct error *err)
{
    double *sum = mem_new((size_t)w->n, sizeof *sum, err);
    float *row = mem_new((size_t)w->n, sizeof *row, err);
    int64_t rows = 0;
    int width = w->inputs->moments.width;
    bool ok = sum && row;
    for (int k = 0; ok && k < w->n_consumers; k++) {
        const struct part *p = w->consumers[k];
        if (!p->matrix)
            continue;
        for (int64_t r = 0; ok && r < p->source->rows * p->source->mats; r++, rows++) {
            ok = part_row(p, r / p->source->rows, r % p->source->rows, row, err);
            for (int from = 0; ok && from < w->n; from += width) {
                float most = 0;
                for (int c = from; c < from + width && c < w->n; c++)
                    most = fabsf(row[c]) > most ? fabsf(row[c]) : most;
                for (int c = from; c < from + width && c < w->n; c++)
                    sum[c] += (double)(fabsf(row[c]) / (most + 1e-6f));
            }
        }
    }
    for (int c = 0; ok && c < w->n; c++)
        w->weight[c] = rows ? (float)(sum[c] / (double)rows) : 1;
    free(sum);
    free(row);
    return ok;
}

/* Candidate r: inputs against weights in the ratio r / ratios; -1 is the identity. */
static void make_scale(struct work *w, int r)
{
    float lo = INFINITY, hi = 0, ratio = (float)r / (float)w->ratios;
    for (int c = 0; c < w->n; c++) {
        float s = r < 0 ? 1 : powf(w->inputs->input[c], ratio) / (powf(w->weight[c], 1 - ratio) + 1e-4f);
        s = s > 1e-4f ? s : 1e-4f;
        w->scale[c] = s;
        lo = s < lo ? s : lo;
        hi = s > hi ? s : hi;
    }
    float middle = sqrtf(lo * hi);
    for (int c = 0; c < w->n && r >= 0; c++) {
        w->scale[c] /= middle;
        if (!(w->scale[c] > 0) || !isfinite(w->scale[c]))
            w->scale[c] = 1;
    }
}

static bool use_dense(struct work *w, int slot, const struct part *p, float *data, struct error *err)
{
    struct tensor t = *p->source;
    t.format = FORMAT_F32;
    t.data = data;
    t.bytes = (uint64_t)(t.rows * t.mats * t.cols) * sizeof *data;
    t.col_perm = NULL;
    t.add = 0;
    bool ok = engine_replace(w->pass->engine, &t, err);
    free(w->dense[slot]);
    w->dense[slot] = data;
    return ok;
}

static float *dense_of(const struct part *p, const float *col, struct error *err)
{
    const struct tensor *t = p->source;
    float *x = mem_new_aligned((size_t)(t->rows * t->mats * t->cols), sizeof *x, err);
    for (int64_t r = 0; x && r < t->rows * t->mats; r++) {
        float *row = x + r * t->cols;
        if (!part_row(p, r / t->rows, r % t->rows, row, err)) {
            free(x);
            return NULL;
        }
        for (int64_t c = 0; col && c < t->cols; c++)
            row[c] *= col[c];
    }
    return x;
}

/* Error in the output of consumer k, were its weights multiplied by the candidate scale and rounded. */
static bool candidate_error(const struct work *w, int k, double *error, struct error *err)
{
    const struct part *p = w->consumers[k];
    const struct tensor *t = p->source;
    int64_t rows = t->rows * t->mats, bytes = format_row_bytes(p->to, t->cols);
    float *x = dense_of(p, w->scale, err), *h = mem_new((size_t)w->n, sizeof *h, err);
    uint8_t *blocks = mem_new((size_t)(rows * bytes), 1, err);
    bool ok = x && h && blocks;
    for (int c = 0; ok && c < w->n; c++)
        h[c] = w->inputs->square[c] / (w->scale[c] * w->scale[c]);
    if (ok) {
        round_rows_plain(p->to, w->job->format, x, (int)rows, w->n, h, w->job->pool, blocks);
        ok = moments_error(&w->inputs->moments, p->to, x, blocks, (int)rows, w->scale, w->job->pool, error, err);
    }
    free(x);
    free(h);
    free(blocks);
    return ok;
}

/* The best candidate is left in w->scale; *gain: its error against the identity's. */
static bool search(struct work *w, double *gain, struct error *err)
{
    double best = INFINITY, identity = 0;
    int chosen = -1;
    for (int r = -1; r < w->ratios; r++) {
        double error = 0;
        make_scale(w, r);
        for (int k = 0; k < w->n_consumers; k++)
            if (w->consumers[k]->matrix && !candidate_error(w, k, &error, err))
                return false;
        if (r < 0)
            identity = error;
        if (error < best) {
            best = error;
            chosen = r;
        }
    }
    make_scale(w, chosen);
    *gain = identity > 0 ? best / identity : 1;
    return true;
}

/* ---- proof ---- */

/* The first tokens of the first window, in front of the layer at hand. */
struct proof {
    int tokens;
    float *x, *ahead;           /* [tokens][hidden]: the stream, and a copy that runs on */
    float *ple;                 /* [tokens][n_layers * ple_size] or NULL */
    float *before, *after;      /* logits [tokens][vocab] */
};

static bool proof_open(struct proof *f, struct pass *s, struct error *err)
{
    const struct model_config *c = &s->job->model->config;
    const struct calibration *k = s->job->calibration;
    *f = (struct proof){ .tokens = k->tokens < PROOF_TOKENS ? k->tokens : PROOF_TOKENS };
    size_t n = (size_t)f->tokens, d = (size_t)c->hidden, wide = (size_t)c->n_layers * (size_t)c->ple_size;
    return (f->x = mem_new_aligned(n * d, sizeof(float), err)) && (f->ahead = mem_new_aligned(n * d, sizeof(float), err)) &&
           (!wide || (f->ple = mem_new_aligned(n * wide, sizeof(float), err))) &&
           (f->before = mem_new(n * (size_t)c->vocab, sizeof(float), err)) && (f->after = mem_new(n * (size_t)c->vocab, sizeof(float), err)) &&
           engine_stream_embed(s->engine, k->ids, 1, f->tokens, f->x, f->ple, err);
}

static void proof_close(struct proof *f)
{
    free(f->x);
    free(f->ahead);
    free(f->ple);
    free(f->before);
    free(f->after);
}

/* A group of its own keeps the K/V that later layers read. */
static bool proof_layer(const struct proof *f, struct pass *s, int layer, float *x, struct error *err)
{
    engine_stream_group(s->engine, s->groups);
    return engine_stream_layer(s->engine, layer, 1, f->tokens, x, f->ple, err);
}

static bool logits(struct work *w, float *out, struct error *err)
{
    const struct proof *f = w->proof;
    const struct model_config *c = &w->job->model->config;
    bool ok = true;
    memcpy(f->ahead, f->x, (size_t)f->tokens * (size_t)c->hidden * sizeof *f->x);
    for (int l = w->layer; ok && l < c->n_layers; l++) {
        ok = proof_layer(f, w->pass, l, f->ahead, err);
        pass_forget(w->pass, l);
    }
    return ok && engine_stream_logits(w->pass->engine, f->tokens, f->ahead, out, err);
}

/* Producer divided and consumers multiplied, in float32, nothing rounded. */
static bool use_folded(struct work *w, struct error *err)
{
    const struct tensor *t = w->producer->source;
    float *x = dense_of(w->producer, NULL, err);
    bool ok = x != NULL;
    for (int64_t i = 0; ok && i < t->rows * t->cols; i++)
        x[i] /= w->scale[folds[w->fold].rows ? i / t->cols : i];
    ok = ok && use_dense(w, MOST_CONSUMERS, w->producer, x, err);
    for (int k = 0; ok && k < w->n_consumers; k++) {
        float *y = dense_of(w->consumers[k], w->scale, err);
        ok = y && use_dense(w, k, w->consumers[k], y, err);
    }
    return ok;
}

/* Folds of earlier steps, nothing rounded. */
static bool use_unrounded(struct work *w, struct error *err)
{
    float *x = dense_of(w->producer, NULL, err);
    bool ok = x && use_dense(w, MOST_CONSUMERS, w->producer, x, err);
    for (int k = 0; ok && k < w->n_consumers; k++) {
        x = dense_of(w->consumers[k], NULL, err);
        ok = x && use_dense(w, k, w->consumers[k], x, err);
    }
    return ok;
}

static bool prove(struct work *w, bool *proven, struct error *err)
{
    const struct proof *f = w->proof;
    size_t n = (size_t)w->job->model->config.vocab * (size_t)f->tokens;
    float worst = 0;
    bool ok = use_unrounded(w, err) && logits(w, f->before, err) && use_folded(w, err) && logits(w, f->after, err);
    for (size_t i = 0; ok && i < n; i++)
        if (!(fabsf(f->before[i] - f->after[i]) <= worst))
            worst = fabsf(f->before[i] - f->after[i]);
    *proven = ok && worst < 1e-3f;
    if (ok && !*proven)
        job_warn(w->job, "layer %d, %s: folding changes a logit by %g, more than 0.001; skipped", w->layer, folds[w->fold].name, (double)worst);
    return ok;
}

/* ---- what was chosen ---- */

static bool multiply(float **scale, const float *by, int n, struct error *err)
{
    if (!*scale) {
        *scale = mem_new((size_t)n, sizeof **scale, err);
        for (int c = 0; *scale && c < n; c++)
            (*scale)[c] = 1;
    }
    for (int c = 0; *scale && c < n; c++)
        (*scale)[c] *= by[c];
    return *scale != NULL;
}

/* Attention scores are sensitive to single large weights of q and k: those are not clipped (quantization.md 3.1). */
static const struct grid *clip_grid(const struct job *j, const struct part *p)
{
    const struct grid *g = grid_find(p->to, j->format);
    bool scores = str_ends(p->source->name, "attn_q.weight") || str_ends(p->source->name, "attn_k.weight");
    return g && !scores && p->source->cols % g->group == 0 ? g : NULL;
}

/* Blocks of a matrix with its folds; what its inputs are like decides its scales. */
static bool round_part(struct job *j, struct layer_stats *s, struct part *p, struct error *err)
{
    const struct tensor *t = p->source;
    const struct input_stats *inputs = stats_of(s, j, p);
    const struct grid *clip = s->clip ? clip_grid(j, p) : NULL;
    int64_t rows = t->rows * t->mats, bytes = format_row_bytes(p->to, t->cols);
    float *x = dense_of(p, NULL, err), *h = mem_new((size_t)t->cols, sizeof *h, err);
    if (!p->data)
        p->data = mem_new((size_t)(rows * bytes), 1, err);
    bool ok = x && h && p->data;
    for (int64_t c = 0; ok && c < t->cols; c++)
        h[c] = inputs->square[c] / (p->col_scale ? p->col_scale[c] * p->col_scale[c] : 1);
    if (ok && clip) {
        s->cut += clip_rows(clip, x, (int)rows, h, &inputs->moments, p->col_scale, j->pool);
        s->groups += rows * (t->cols / clip->group);
    }
    if (ok)
        round_rows_plain(p->to, j->format, x, (int)rows, (int)t->cols, h, j->pool, p->data);
    p->method = p->col_scale || p->row_scale ? "awq" : "rtn diag";
    free(x);
    free(h);
    return ok;
}

static bool keep_fold(struct work *w, struct error *err)
{
    float *inverse = mem_new((size_t)w->n, sizeof *inverse, err);
    bool ok = inverse != NULL;
    for (int c = 0; ok && c < w->n; c++)
        inverse[c] = 1 / w->scale[c];
    if (ok)
        ok = folds[w->fold].rows ? multiply(&w->producer->row_scale, w->scale, w->n, err) : multiply(&w->producer->col_scale, inverse, w->n, err);
    for (int k = 0; ok && k < w->n_consumers; k++)
        ok = multiply(&w->consumers[k]->col_scale, w->scale, w->n, err);
    free(inverse);
    return ok;
}

/* Put into the engine what will be written: blocks, a folded norm or router in float32, or the source's tensor. */
static bool settle(struct work *w, struct part *p, int slot, struct error *err)
{
    struct tensor t = *p->source;
    if (!p->data && (p->col_scale || p->row_scale)) {
        float *x = dense_of(p, NULL, err);
        if (!x || !mem_grow(&w->stats->kept, &w->stats->kept_cap, w->stats->n_kept + 1, sizeof *w->stats->kept, err)) {
            free(x);
            return false;
        }
        bool ok = use_dense(w, slot, p, x, err);
        w->stats->kept[w->stats->n_kept++] = x;
        w->dense[slot] = NULL;
        return ok;
    }
    if (p->data) {
        t.format = p->to;
        t.data = p->data;
        t.bytes = (uint64_t)(t.rows * t.mats) * (uint64_t)format_row_bytes(p->to, t.cols);
        t.col_perm = NULL;
    }
    return engine_replace(w->pass->engine, &t, err);
}

/* ---- one fold, one layer ---- */

static void work_free(struct work *w)
{
    free(w->weight);
    free(w->scale);
    for (int k = 0; k <= MOST_CONSUMERS; k++)
        free(w->dense[k]);
}

static bool work_open(struct work *w, struct error *err)
{
    w->weight = mem_new((size_t)w->n, sizeof(float), err);
    w->scale = mem_new((size_t)w->n, sizeof(float), err);
    return w->weight && w->scale;
}

static bool find_parts(struct work *w)
{
    const struct job *j = w->job;
    bool any = false;
    w->producer = layer_part(j, w->layer, folds[w->fold].producer);
    w->leader = layer_part(j, w->layer, folds[w->fold].leader);
    w->n_consumers = 0;
    for (int k = 0; k < MOST_CONSUMERS && folds[w->fold].consumers[k]; k++) {
        struct part *p = layer_part(j, w->layer, folds[w->fold].consumers[k]);
        if (p)
            w->consumers[w->n_consumers++] = p;
        any |= p && p->matrix;
    }
    w->inputs = w->leader ? stats_of(w->stats, j, w->leader) : NULL;
    if (!w->producer || !w->inputs || !any)
        return false;
    w->n = (int)w->leader->source->cols;
    return (folds[w->fold].rows ? w->producer->source->rows : w->producer->source->cols) == w->n;
}

struct tally {
    int tried, kept;
    double gain;
};

static bool run_fold(struct job *j, struct pass *s, struct proof *f, struct layer_stats *stats, int layer, size_t fold, struct tally *y, struct error *err)
{
    struct work w = { .job = j, .pass = s, .proof = f, .layer = layer, .fold = fold, .stats = stats, .ratios = stats->ratios };
    double gain = 1;
    bool proven = false;
    if (!fold_applies(fold, &j->model->config, layer) || !find_parts(&w))
        return true;
    bool ok = work_open(&w, err) && weigh(&w, err) && search(&w, &gain, err) && (gain >= 1 || prove(&w, &proven, err));
    if (ok && proven) {
        ok = keep_fold(&w, err);
        y->kept++;
        y->gain += gain;
    }
    y->tried++;
    if (ok && proven && w.producer->data)
        ok = round_part(j, stats, w.producer, err);
    for (int k = 0; ok && k < w.n_consumers; k++)
        if (w.consumers[k]->matrix)
            ok = round_part(j, stats, w.consumers[k], err);
    ok = ok && settle(&w, w.producer, MOST_CONSUMERS, err);
    for (int k = 0; ok && k < w.n_consumers; k++)
        ok = settle(&w, w.consumers[k], k, err);
    work_free(&w);
    return ok;
}

static bool stats_open(struct layer_stats *s, struct job *j, int layer, struct error *err)
{
    s->all = mem_new((size_t)j->n_parts, sizeof *s->all, err);
    bool ok = s->all != NULL;
    s->n = 0;
    for (int i = 0; ok && i < j->n_parts; i++) {
        struct part *p = &j->parts[i];
        size_t n = (size_t)p->source->cols;
        if (p->layer != layer || !p->matrix)
            continue;
        struct input_stats *t = &s->all[s->n++];
        const struct grid *g = grid_find(p->to, j->format);
        *t = (struct input_stats){ .part = p, .abs_sum = mem_new(n, sizeof(double), err), .square_sum = mem_new(n, sizeof(double), err),
                                   .input = mem_new(n, sizeof(float), err), .square = mem_new(n, sizeof(float), err) };
        ok = t->abs_sum && t->square_sum && t->input && t->square &&
             moments_open(&t->moments, (int)n, g && (int)n % g->group == 0 ? g->group : BLOCK, s->damp, err);
    }
    return ok;
}

static void stats_close(struct layer_stats *s)
{
    for (int i = 0; i < s->n; i++) {
        free(s->all[i].abs_sum);
        free(s->all[i].square_sum);
        free(s->all[i].input);
        free(s->all[i].square);
        moments_close(&s->all[i].moments);
    }
    free(s->all);
    s->all = NULL;
    s->n = 0;
}

static bool stats_fill(struct layer_stats *s, int layer, struct error *err)
{
    for (int i = 0; i < s->n; i++) {
        struct input_stats *t = &s->all[i];
        for (int64_t c = 0; c < t->part->source->cols; c++) {
            double n = t->tokens ? (double)t->tokens : 1;
            t->input[c] = (float)(t->abs_sum[c] / n);
            t->square[c] = t->tokens ? (float)(t->square_sum[c] / n) : 1;
            if (!isfinite(t->square[c]))
                return fail(err, STATUS_INPUT, "layer %d: the inputs of %s are not all finite", layer, t->part->source->name);
        }
    }
    return true;
}

/* Both streams through the rounded layer, which is written then. */
static bool leave_layer(struct job *j, struct pass *s, struct proof *f, struct layer_stats *stats, int layer, struct error *err)
{
    bool last = layer + 1 == j->model->config.n_layers;
    bool ok = last || (pass_layer(s, layer, NULL, true, "calibrate", err) && proof_layer(f, s, layer, f->x, err));
    engine_drop_layer(s->engine, layer);
    while (stats->n_kept)
        free(stats->kept[--stats->n_kept]);
    return ok && job_write(j, layer, err);
}

static bool run_layer(struct job *j, struct pass *s, struct proof *p, struct layer_stats *stats, int layer, struct tally *y, struct error *err)
{
    const struct engine_tap tap = { see, stats };
    bool ok = stats_open(stats, j, layer, err) && pass_layer(s, layer, &tap, false, "calibrate", err) && stats_fill(stats, layer, err);
    for (size_t f = 0; ok && f < ARRAY_LEN(folds); f++)
        ok = run_fold(j, s, p, stats, layer, f, y, err);
    for (int i = 0; ok && i < j->n_parts; i++) {        /* what no fold reaches */
        struct work w = { .job = j, .pass = s, .stats = stats };
        struct part *part = &j->parts[i];
        if (part->layer == layer && part->matrix && !part->data)
            ok = round_part(j, stats, part, err) && settle(&w, part, 0, err);
    }
    stats_close(stats);
    return ok && leave_layer(j, s, p, stats, layer, err);
}

/* Norms and routers that a fold may reach keep float32 in folders too, so that scales take nothing off their precision;
 * what the output holds is declared before the first layer is looked at. */
static void widen_folded(struct job *j)
{
    for (int l = 0; l < j->model->config.n_layers; l++)
        for (size_t f = 0; f < ARRAY_LEN(folds); f++) {
            if (!fold_applies(f, &j->model->config, l))
                continue;
            struct part *p = layer_part(j, l, folds[f].producer);
            for (int k = -1; k < MOST_CONSUMERS && (k < 0 || folds[f].consumers[k]); k++) {
                p = k < 0 ? p : layer_part(j, l, folds[f].consumers[k]);
                if (p && !p->matrix)
                    p->to = FORMAT_F32;
            }
        }
}

bool awq_prepare(struct job *j, struct error *err)
{
    struct pass s = { 0 };
    struct proof f = { 0 };
    struct layer_stats stats = { .ratios = (int)setting_number(j, "grid"), .clip = setting_number(j, "clip") > 0,
                                 .damp = setting_number(j, "damp"), .pool = j->pool };
    struct tally y = { 0 };
    int layers = j->model->config.n_layers;
    bool ok = pass_open(&s, j, err) && proof_open(&f, &s, err);
    widen_folded(j);
    for (int l = 0; ok && l < layers; l++) {
        job_progress(j, "scale layer", l, layers);
        ok = run_layer(j, &s, &f, &stats, l, &y, err);
    }
    pass_close(&s);
    proof_close(&f);
    while (stats.n_kept)
        free(stats.kept[--stats.n_kept]);
    free(stats.kept);
    if (ok && stats.groups)
        text_printf(&j->notes, "clipped=%.4f of all groups\n", (double)stats.cut / (double)stats.groups);
    if (ok)
        text_printf(&j->notes, "folds=%d of %d kept, mean output error %.4f of no scaling\n", y.kept, y.tried, y.kept ? y.gain / y.kept : 1);
    return ok;
}
