/* bench: tokens/s of prefill, decode and batched decode, beside the peaks of this machine that bound them. */
#include "cli/cli.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- random weights for a shape ---- */

enum { PATTERN_ROWS = 16 };

/* Roughly normal, deterministic: the sum of four uniforms. */
static float noise(uint64_t seed, uint64_t i)
{
    double sum = 0;
    for (uint64_t k = 0; k < 4; k++)
        sum += random_unit_at(seed, 4 * i + k);
    return (float)((sum - 2) * 0.04);
}

/* A few quantized rows repeated over the tensor: right block contents, distinct memory for every tensor. */
static bool fill_tensor(struct tensor *t, uint64_t seed, struct error *err)
{
    int64_t row_bytes = format_row_bytes(t->format, t->cols), rows = t->rows * t->mats;
    float *x = mem_new((size_t)t->cols, sizeof *x, err);
    char *data = x ? mem_new_aligned((size_t)rows, (size_t)row_bytes, err) : NULL;
    bool ok = data != NULL, norm = t->rows == 1;
    for (int64_t r = 0; ok && r < rows; r++) {
        if (r >= PATTERN_ROWS) {
            memcpy(data + r * row_bytes, data + r % PATTERN_ROWS * row_bytes, (size_t)row_bytes);
            continue;
        }
        for (int64_t i = 0; i < t->cols; i++)
            x[i] = norm ? 1 + noise(seed, (uint64_t)i) : noise(seed + (uint64_t)r, (uint64_t)i);
        ok = quantize_row(t->format, x, NULL, data + r * row_bytes, t->cols) ||
             fail(err, STATUS_UNSUPPORTED, "--shape: no weights can be made in format %s", formats[t->format].name);
    }
    free(x);
    t->data = data;
    return ok;
}

static void free_weights(struct model *m)
{
    for (int i = 0; i < m->n_tensors; i++) {
        free((void *)(uintptr_t)m->tensors[i].data);
        m->tensors[i].data = NULL;
    }
}

/* Layer of "blk.12.attn_q.weight", or -1. */
static int layer_of(const char *tensor)
{
    int layer;
    return sscanf(tensor, "blk.%d.", &layer) == 1 ? layer : -1;
}

/* Tensors with a part for every layer follow a cut. */
static void cut_tensor(const struct model_config *c, struct tensor *t)
{
    int64_t wide = (int64_t)c->n_layers * c->ple_size;
    if (strcmp(t->name, "per_layer_token_embd.weight") == 0)
        t->cols = wide;
    else if (strcmp(t->name, "per_layer_model_proj.weight") == 0)
        t->rows = wide;
    else
        return;
    t->bytes = (uint64_t)t->rows * (uint64_t)format_row_bytes(t->format, t->cols);
}

static bool open_shape(struct model *m, const struct settings *s, struct error *err)
{
    char *name = str_dup(s->shape, err), *colon = name ? strchr(name, ':') : NULL;
    if (colon)
        *colon = '\0';
    bool ok = name && model_shape(m, name, colon ? colon + 1 : "google-q4_0", err);
    if (ok && s->layers && s->layers < m->config.n_layers)
        m->config.n_layers = (int)s->layers;
    for (int i = 0; ok && i < m->n_tensors; i++)
        cut_tensor(&m->config, &m->tensors[i]);
    for (int i = 0; ok && i < m->n_tensors; i++)
        if (layer_of(m->tensors[i].name) < m->config.n_layers)
            ok = fill_tensor(&m->tensors[i], 1000 * (uint64_t)i, err);
    free(name);
    return ok;
}

/* ---- what a token costs ---- */

struct work {
    double matrix_weights, head_weights;        /* multiplied for each token; for each row of logits */
    double matrix_bytes, head_bytes;            /* read for one decoded token */
    bool integer;
};

static struct work work_of(const struct model *m)
{
    struct work w = { 0 };
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

/* ---- measuring ---- */

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

struct bench {
    const struct settings *s;
    const struct model *m;
    struct engine *e;
    struct work work;
    struct machine_peaks peaks;
    double peak_ops;            /* G operations/s of the unit that prefill uses */
    const char *peak_name;
    float *logits;
    int32_t *ids;
    struct table *table;
    cJSON *rows;
};

static void add_row(struct bench *b, const char *what, double tokens_s, double share, const char *bound)
{
    if (b->rows) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "model", b->m->label);
        cJSON_AddStringToObject(o, "work", what);
        cJSON_AddNumberToObject(o, "tokens_per_second", tokens_s);
        cJSON_AddNumberToObject(o, "share_of_peak", share);
        cJSON_AddStringToObject(o, "bound_by", bound);
        cJSON_AddItemToArray(b->rows, o);
        return;
    }
    table_cell(b->table, "%s", b->m->label);
    table_cell(b->table, "%s", what);
    table_cell(b->table, "%.2f", tokens_s);
    table_cell(b->table, "%.1f %%", 100 * share);
    table_cell(b->table, "%s", bound);
}

/* Seconds for one prefill of n tokens in a fresh sequence, logits of the last. */
static bool time_prefill(struct bench *b, int n, double *seconds, struct error *err)
{
    struct seq *seq = NULL;
    bool ok = seq_open(&seq, b->e, NULL, err);
    struct span span = { seq, b->ids, n, n - 1 };
    int64_t start = clock_ns();
    ok = ok && engine_forward(b->e, &span, 1, b->logits, err);
    *seconds = (double)(clock_ns() - start) / 1e9;
    seq_close(seq);
    return ok;
}

static bool bench_prefill(struct bench *b, int n, struct error *err)
{
    double times[64], s;
    int repeats = b->s->repeats < 64 ? (int)b->s->repeats : 64;
    if (n > b->m->config.context)
        return true;
    if (!time_prefill(b, n < 32 ? n : 32, &s, err))
        return false;
    for (int r = 0; r < repeats; r++)
        if (!time_prefill(b, n, &times[r], err))
            return false;
    double t = median(times, repeats), ops = 2 * (b->work.matrix_weights * n + b->work.head_weights) / 1e9;
    char what[32];
    snprintf(what, sizeof what, "prefill %d", n);
    add_row(b, what, n / t, ops / t / b->peak_ops, b->peak_name);
    return true;
}

enum { DECODE_STEPS = 16, DECODE_START = 32, WIDEST = 32 };

static bool decode_steps(struct bench *b, struct seq **seqs, int width, double *seconds, struct error *err)
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
    *seconds = (double)(clock_ns() - start) / 1e9;
    return true;
}

static bool time_decode(struct bench *b, int width, double *seconds, struct error *err)
{
    struct seq *seqs[WIDEST] = { 0 };
    bool ok = true;
    for (int i = 0; ok && i < width; i++)
        ok = seq_open(&seqs[i], b->e, NULL, err);
    ok = ok && decode_steps(b, seqs, width, seconds, err);
    for (int i = 0; i < width; i++)
        seq_close(seqs[i]);
    return ok;
}

static bool bench_decode(struct bench *b, int width, struct error *err)
{
    double times[64];
    int repeats = b->s->repeats < 64 ? (int)b->s->repeats : 64;
    if (DECODE_START + DECODE_STEPS > b->m->config.context)
        return true;
    for (int r = 0; r < repeats; r++)
        if (!time_decode(b, width, &times[r], err))
            return false;
    double t = median(times, repeats) / DECODE_STEPS;
    double read = (b->work.matrix_bytes + b->work.head_bytes) / 1e9 / t / b->peaks.read_gbs;
    double ops = 2 * width * (b->work.matrix_weights + b->work.head_weights) / 1e9 / t / b->peak_ops;
    char what[32];
    snprintf(what, sizeof what, width == 1 ? "decode" : "decode x %d", width);
    add_row(b, what, width / t, read > ops ? read : ops, read > ops ? "read" : b->peak_name);
    return true;
}

static bool bench_all(struct bench *b, struct error *err)
{
    static const int prefills[] = { 64, 512, 2048 }, widths[] = { 1, 4, 16, 32 };
    size_t vocab = (size_t)b->m->config.vocab;
    int longest = b->s->prompt_tokens > 2048 ? (int)b->s->prompt_tokens : 2048;
    b->logits = mem_new(WIDEST * vocab, sizeof *b->logits, err);
    b->ids = mem_new((size_t)longest + WIDEST, sizeof *b->ids, err);
    if (!b->logits || !b->ids)
        return false;
    for (int i = 0; i < longest + WIDEST; i++)
        b->ids[i] = (int32_t)(random_at(1, (uint64_t)i) % vocab);
    bool ok = true;
    if (b->s->prompt_tokens)
        ok = bench_prefill(b, (int)b->s->prompt_tokens, err);
    for (size_t i = 0; ok && i < ARRAY_LEN(prefills) && !b->s->prompt_tokens; i++)
        ok = bench_prefill(b, prefills[i], err);
    for (size_t i = 0; ok && i < ARRAY_LEN(widths); i++)
        ok = bench_decode(b, widths[i], err);
    return ok;
}

static bool bench_model(struct bench *b, struct model *m, struct error *err)
{
    struct engine_options eo;
    b->m = m;
    b->work = work_of(m);
    int64_t start = clock_ns();
    bool ok = engine_options_of(b->s, &eo, err) && engine_open(&b->e, m, &eo, err);
    if (ok) {
        enum act_mode act = eo.act;
        bool integer = b->work.integer && act != ACT_F32;
        b->peak_name = !integer ? "f32" : act == ACT_Q8 ? "int8" : "int16";
        b->peak_ops = !integer ? b->peaks.f32_gflops : act == ACT_Q8 ? b->peaks.int8_gops : b->peaks.int16_gops;
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
        ok = open_shape(&m, b->s, err) && bench_model(b, &m, err);
        free_weights(&m);
        model_close(&m);
    }
    for (size_t i = 0; ok && i < b->s->rest.n; i++) {
        ok = model_open(&m, b->s->rest.words[i], false, err) && bench_model(b, &m, err);
        model_close(&m);
    }
    return ok;
}

static bool print_bench_json(struct bench *b, struct error *err)
{
    cJSON *o = cJSON_CreateObject(), *p = cJSON_AddObjectToObject(o, "peaks");
    cJSON_AddNumberToObject(p, "int8_gops", b->peaks.int8_gops);
    cJSON_AddNumberToObject(p, "int16_gops", b->peaks.int16_gops);
    cJSON_AddNumberToObject(p, "f32_gflops", b->peaks.f32_gflops);
    cJSON_AddNumberToObject(p, "read_gbs", b->peaks.read_gbs);
    cJSON_AddItemToObject(o, "rows", b->rows);
    return json_print(o, err);
}

int cmd_bench(const struct settings *s, struct error *err)
{
    static const char *const heads[] = { "model", "work", "tokens/s", "of peak", "bound by" };
    struct bench b = { .s = s };
    if (!s->shape && !s->rest.n)
        return fail(err, STATUS_USAGE, "bench: give MODEL.. or --shape NAME[:RECIPE] (`qdelta list models`)"), EXIT_USAGE;
    if (!engine_measure_peaks(&b.peaks, (int)s->threads, s->kernels, err))
        return EXIT_FAILED;
    note(s, "peaks of this machine: int8 %.0f GOP/s, int16 %.0f GOP/s, f32 %.0f GFLOP/s, read %.1f GB/s", b.peaks.int8_gops,
         b.peaks.int16_gops, b.peaks.f32_gflops, b.peaks.read_gbs);
    if (s->json)
        b.rows = cJSON_CreateArray();
    else if (!(b.table = table_new(5, heads, "llrrl", err)))
        return EXIT_FAILED;
    bool ok = bench_arguments(&b, err);
    if (ok && s->json)
        ok = print_bench_json(&b, err);
    else if (ok)
        ok = table_print(b.table, stdout, err);
    else {
        table_free(b.table);
        cJSON_Delete(b.rows);
    }
    return ok ? EXIT_DONE : EXIT_FAILED;
}
