/* write.c - parts to bytes: rows read, rounded and streamed out in slabs; the GGUF output and its metadata. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "blocks.h"
#include "imatrix.h"
#include "job.h"

/* The source's bytes can be used: same format, nothing to add, fold or permute inside rows. */
static bool same_bytes(const struct part *p)
{
    const struct tensor *t = p->source;
    return p->to == t->format && t->add == 0 && !t->col_perm && !p->col_scale && !p->row_scale;
}

enum { SLAB_BYTES = 8 << 20, CHUNK_WEIGHTS = 1 << 15, RMS_EVERY = 8 /* rows, for the report's error */ };

struct slab {
    const struct job *job;
    struct part *part;
    const float *importance;    /* [mats][cols] or NULL */
    int64_t first, rows, per_chunk, row_bytes;      /* rows count through all matrices */
    uint8_t *out;
    float *scratch;             /* two rows a thread */
    int64_t *bad;               /* of each chunk: a row of the slab that read_row or row_holds fails, or -1 */
    double *error, *power;      /* of each chunk, over every RMS_EVERY-th row */
};

static void measure(struct slab *s, int chunk, const float *x, const uint8_t *row, float *back)
{
    int64_t n = s->part->source->cols;
    formats[s->part->to].to_f32(row, back, n);
    double error = 0, power = 0;
    for (int64_t c = 0; c < n; c++) {
        double e = (double)x[c] - (double)back[c];
        error += e * e;
        power += (double)x[c] * (double)x[c];
    }
    s->error[chunk] += error;
    s->power[chunk] += power;
}

/* Codes and scales of an unpacked layout, in Q4_0 or Q4_1: the same values in other bytes. */
static bool repack_row(const struct part *p, int64_t row, uint8_t *out)
{
    const struct tensor *t = p->source;
    const struct format *f = &formats[t->format];
    if (!format_unpacked_4(t->format) || (p->to != FORMAT_Q4_0 && p->to != FORMAT_Q4_1))
        return false;
    const uint8_t *b = tensor_at(t, row / t->rows, row % t->rows);
    for (int64_t i = 0; i < t->cols; i += f->block, b += f->block_bytes) {
        int8_t codes[32];
        float d, m;
        f->to_codes(b, codes, &d, &m, f->block);
        struct block_q4_1 q = { f32_to_f16(d), f32_to_f16(m), { 0 } };
        int head = p->to == FORMAT_Q4_0 ? 2 : 4;
        memcpy(out, &q, (size_t)head);
        memcpy(out + head, b + f->block_bytes - 16, 16);
        out += head + 16;
    }
    return true;
}

/* A weight can be finite and its block's scale beyond what the format holds.  rows: n rows of blocks. */
static bool scales_hold(const struct part *p, const uint8_t *rows, int64_t n, struct error *err)
{
    struct tensor t = { .name = p->source->name, .format = p->to, .rows = n, .cols = p->source->cols, .mats = 1, .data = rows };
    return tensor_check_scales(&t, 0, n, err) || fail_in(err, "a weight is too large for %s", formats[p->to].name);
}

/* The source of row i of the slab. */
static bool read_row(const struct slab *s, int64_t i, float *x, struct error *err)
{
    const struct part *p = s->part;
    int64_t at = s->first + i, rows = p->source->rows;
    return part_row(p, at / rows, part_source_row(p, at % rows), x, err);
}

/* Blocks of row i were written. */
static bool row_holds(const struct slab *s, int64_t i, struct error *err)
{
    return scales_hold(s->part, s->out + i * s->row_bytes, 1, err);
}

static void quantize_chunk(void *ctx, int chunk, int thread)
{
    struct slab *s = ctx;
    const struct part *p = s->part;
    int64_t n = p->source->cols, rows = p->source->rows, end = (chunk + 1) * s->per_chunk;
    float *x = s->scratch + 2 * thread * n;
    s->error[chunk] = s->power[chunk] = 0;
    for (int64_t i = chunk * s->per_chunk; i < end && i < s->rows; i++) {
        int64_t at = s->first + i, m = at / rows, r = part_source_row(p, at % rows);
        uint8_t *out = s->out + i * s->row_bytes;
        struct error ignored;
        s->bad[chunk] = i;
        if (!read_row(s, i, x, &ignored))
            return;
        if (!s->job->recipe && repack_row(p, m * rows + r, out))
            continue;
        if (!s->job->method->row || !s->job->method->row(p, x, out))
            quantize_row(p->to, x, s->importance ? s->importance + m * n : NULL, out, n);
        if (!row_holds(s, i, &ignored))
            return;
        if (at % RMS_EVERY == 0)
            measure(s, chunk, x, out, x + n);
    }
    s->bad[chunk] = -1;
}

/* Streams rows to a sink, which the GGUF and the safetensors writers both are. */
typedef bool (*sink)(void *ctx, const void *data, uint64_t bytes, struct error *err);

static bool stream_slabs(struct slab *s, sink put, void *ctx, double *error, double *power, struct error *err)
{
    const struct tensor *t = s->part->source;
    int64_t total = t->rows * t->mats, most = SLAB_BYTES / s->row_bytes;
    most = most < 1 ? 1 : most > total ? total : most;
    s->per_chunk = CHUNK_WEIGHTS / t->cols > 0 ? CHUNK_WEIGHTS / t->cols : 1;
    for (s->first = 0; s->first < total; s->first += most) {
        s->rows = total - s->first < most ? total - s->first : most;
        int chunks = (int)((s->rows + s->per_chunk - 1) / s->per_chunk);
        pool_run(s->job->pool, chunks, quantize_chunk, s);
        for (int c = 0; c < chunks; c++) {
            if (s->bad[c] >= 0)
                return read_row(s, s->bad[c], s->scratch, err) && row_holds(s, s->bad[c], err);
            *error += s->error[c];
            *power += s->power[c];
        }
        if (!put(ctx, s->out, (uint64_t)(s->rows * s->row_bytes), err))
            return false;
        model_forget(s->job->model, t, s->first, s->rows);     /* heads are re-ordered within a slab or the next */
    }
    return true;
}

static bool stream_rounded(const struct job *j, struct part *p, sink put, void *ctx, struct error *err)
{
    const struct tensor *t = p->source;
    int64_t row_bytes = format_row_bytes(p->to, t->cols), total = t->rows * t->mats, slab_rows = SLAB_BYTES / row_bytes;
    slab_rows = slab_rows < 1 ? 1 : slab_rows > total ? total : slab_rows;
    size_t chunks = (size_t)slab_rows + 1;
    struct slab s = { .job = j, .part = p, .row_bytes = row_bytes };
    s.importance = formats[p->to].quantized ? imatrix_importance(j->imatrix, t) : NULL;
    s.out = mem_new((size_t)(slab_rows * row_bytes), 1, err);
    s.scratch = mem_new_aligned((size_t)(2 * t->cols * pool_threads(j->pool)), sizeof(float), err);
    s.bad = mem_new(chunks, sizeof *s.bad, err);
    s.error = mem_new(chunks, sizeof *s.error, err);
    s.power = mem_new(chunks, sizeof *s.power, err);
    double error = 0, power = 0;
    bool ok = s.out && s.scratch && s.bad && s.error && s.power && stream_slabs(&s, put, ctx, &error, &power, err);
    if (ok && formats[p->to].quantized && isnan(p->rms))
        p->rms = power > 0 ? sqrt(error / power) : 0;
    if (!p->method)
        p->method = !formats[p->to].quantized ? "convert" :
                    !j->recipe ? "repack" : j->method->row && p->to == j->method->row_format ? j->method->row_name :
                    s.importance ? "rtn imatrix" : "rtn";
    free(s.out);
    free(s.scratch);
    free(s.bad);
    free(s.error);
    free(s.power);
    return ok;
}

/* Bytes that exist already, rows permuted where the rotary layout changes. */
static bool stream_bytes(const struct part *p, const uint8_t *bytes, int64_t mats, sink put, void *ctx, struct error *err)
{
    const struct tensor *t = p->source;
    uint64_t row_bytes = (uint64_t)format_row_bytes(p->to, t->cols), rows = (uint64_t)(t->rows * mats);
    if (!p->head_size)
        return put(ctx, bytes, rows * row_bytes, err);
    for (uint64_t r = 0; r < rows; r++)
        if (!put(ctx, bytes + (uint64_t)part_source_row(p, (int64_t)r) * row_bytes, row_bytes, err))
            return false;
    return true;
}

static bool stream_part(const struct job *j, struct part *p, sink put, void *ctx, struct error *err)
{
    if (p->data)
        return scales_hold(p, p->data, p->source->rows * p->source->mats, err) && stream_bytes(p, p->data, p->source->mats, put, ctx, err);
    if (!same_bytes(p))
        return stream_rounded(j, p, put, ctx, err);
    if (!p->method)
        p->method = "copy";
    bool ok = part_check(j, p, err);
    for (int64_t m = 0; ok && m < p->source->mats; m++)
        ok = stream_bytes(p, tensor_at(p->source, m, 0), 1, put, ctx, err);
    return ok;
}

/* A copied tensor is looked at too: a NaN in a norm ruins the model as surely as one in a matrix. */
struct finite {
    const struct part *p;
    float *scratch;
    int64_t per_chunk;
    int64_t *bad;
};
static void check_chunk(void *ctx, int chunk, int thread)
{
    struct finite *f = ctx;
    const struct tensor *t = f->p->source;
    int64_t end = (chunk + 1) * f->per_chunk, total = t->rows * t->mats;
    f->bad[chunk] = -1;
    for (int64_t r = chunk * f->per_chunk; r < end && r < total && f->bad[chunk] < 0; r++) {
        struct error ignored;
        if (!part_row(f->p, r / t->rows, r % t->rows, f->scratch + thread * t->cols, &ignored))
            f->bad[chunk] = r;
    }
}

bool part_check(const struct job *j, const struct part *p, struct error *err)
{
    const struct tensor *t = p->source;
    int64_t per = CHUNK_WEIGHTS / t->cols > 0 ? CHUNK_WEIGHTS / t->cols : 1;
    int chunks = (int)((t->rows * t->mats + per - 1) / per);
    struct finite f = { p, mem_new((size_t)(t->cols * pool_threads(j->pool)), sizeof(float), err), per,
                        mem_new((size_t)chunks, sizeof(int64_t), err) };
    bool ok = f.scratch && f.bad;
    if (ok)
        pool_run(j->pool, chunks, check_chunk, &f);
    for (int c = 0; ok && c < chunks; c++)
        if (f.bad[c] >= 0)
            ok = part_row(p, f.bad[c] / t->rows, f.bad[c] % t->rows, f.scratch, err);
    free(f.scratch);
    free(f.bad);
    return ok;
}

/* ---- metadata ---- */

static bool kv_list_add(struct kv_list *l, struct gguf_kv kv, struct error *err)
{
    if (!mem_grow(&l->kv, &l->cap, (size_t)l->n + 1, sizeof *l->kv, err))
        return false;
    l->kv[l->n++] = kv;
    return true;
}

static bool kv_list_text(struct kv_list *l, const char *key, const char *value, struct error *err)
{
    char *k = arena_str(&l->arena, key, strlen(key), err), *v = arena_str(&l->arena, value, strlen(value), err);
    return k && v && kv_list_add(l, (struct gguf_kv){ .key = k, .type = GGUF_STRING, .value.s = { v, strlen(v) } }, err);
}

/* "key=value" lines under qdelta.quantize. */
static bool kv_list_notes(struct kv_list *l, const struct text *notes, struct error *err)
{
    const char *p = text_str(notes);
    for (const char *end; *p; p = *end ? end + 1 : end) {
        struct text key = { 0 }, value = { 0 };
        end = p + strcspn(p, "\n");
        size_t name = strcspn(p, "=\n");
        text_puts(&key, "qdelta.quantize.");
        text_add(&key, p, name);
        if (p + name < end)
            text_add(&value, p + name + 1, (size_t)(end - p) - name - 1);
        bool ok = kv_list_text(l, text_str(&key), text_str(&value), err);
        text_free(&key);
        text_free(&value);
        if (!ok)
            return false;
    }
    return true;
}

static bool dropped(const char *key, bool new_type)
{
    static const char *const of_the_old_file[] = { "split.", "quantize.imatrix.", "qdelta.quantize." };
    for (size_t i = 0; i < ARRAY_LEN(of_the_old_file); i++)
        if (str_starts(key, of_the_old_file[i]))
            return true;
    return new_type && (strcmp(key, "general.file_type") == 0 || strcmp(key, "general.quantization_version") == 0);
}

static bool add_provenance(struct kv_list *l, const struct job *j, struct error *err)
{
    struct text settings = { 0 }, fallbacks = { 0 };
    for (int i = 0; j->o->settings && j->o->settings[i]; i++)
        text_printf(&settings, "%s%s", i ? " " : "", j->o->settings[i]);
    text_add(&fallbacks, text_str(&j->fallbacks), j->fallbacks.len);
    struct text method = { 0 };
    text_printf(&method, "%s%s%s", j->method->info.name, j->format ? ":" : "", j->format ? j->format : "");
    bool ok = kv_list_text(l, "qdelta.quantize.method", text_str(&method), err) &&
              kv_list_text(l, "qdelta.quantize.version", j->o->program_version ? j->o->program_version : "", err) &&
              kv_list_text(l, "qdelta.quantize.source", path_base(j->model->path), err) &&
              (!settings.len || kv_list_text(l, "qdelta.quantize.settings", text_str(&settings), err)) &&
              (!fallbacks.len || kv_list_text(l, "qdelta.quantize.fallbacks", text_str(&fallbacks), err)) &&
              kv_list_notes(l, &j->notes, err);
    text_free(&settings);
    text_free(&fallbacks);
    text_free(&method);
    return ok;
}

/* general.file_type of a file that no recipe made: by the format of most weights. */
static uint64_t plain_file_type(const struct job *j)
{
    static const uint64_t types[FORMAT_COUNT] = { [FORMAT_F16] = 1, [FORMAT_BF16] = 32, [FORMAT_Q4_0] = 2, [FORMAT_Q4_1] = 3, [FORMAT_Q8_0] = 7 };
    int64_t weights[FORMAT_COUNT] = { 0 };
    int most = 0;
    for (int i = 0; i < j->n_parts; i++)
        weights[j->parts[i].to] += j->parts[i].source->cols * j->parts[i].source->rows * j->parts[i].source->mats;
    for (int f = 0; f < FORMAT_COUNT; f++)
        most = weights[f] > weights[most] ? f : most;
    return types[most];
}

bool kv_list_make(struct kv_list *l, const struct job *j, struct error *err)
{
    struct gguf_kv *from;
    int n;
    *l = (struct kv_list){ 0 };
    bool ok = model_metadata(j->model, &from, &n, err);
    for (int i = 0; ok && i < n; i++)
        if (!dropped(from[i].key, j->recipe != NULL))
            ok = kv_list_add(l, from[i], err);
    if (ok && j->recipe)
        ok = kv_list_add(l, (struct gguf_kv){ .key = "general.file_type", .type = GGUF_U32, .value.u = (uint64_t)j->recipe->file_type }, err) &&
             kv_list_add(l, (struct gguf_kv){ .key = "general.quantization_version", .type = GGUF_U32, .value.u = 2 }, err);
    else if (ok && j->model->source != MODEL_GGUF)
        ok = kv_list_add(l, (struct gguf_kv){ .key = "general.file_type", .type = GGUF_U32, .value.u = plain_file_type(j) }, err);
    return ok && add_provenance(l, j, err);
}

void kv_list_free(struct kv_list *l)
{
    free(l->kv);
    arena_free(&l->arena);
    *l = (struct kv_list){ 0 };
}

/* ---- GGUF ---- */

static bool gguf_sink(void *ctx, const void *data, uint64_t bytes, struct error *err)
{
    return gguf_writer_data(ctx, data, bytes, err);
}

static void declare(struct writer_tensor *w, const struct part *p)
{
    const struct tensor *t = p->source;
    *w = (struct writer_tensor){ t->name, p->to, t->mats > 1 ? 3 : t->rows > 1 ? 2 : 1, { t->cols, t->rows, t->mats } };
}

static void note_vocabulary(const struct job *j, const struct kv_list *l)
{
    for (int i = 0; i < l->n; i++)
        if (strcmp(l->kv[i].key, "tokenizer.ggml.model") == 0)
            return;
    if (j->model->tokenizer)
        job_warn(j, "written without a vocabulary: a tokenizer of kind %s has no GGUF form here", tokenizer_kind(j->model->tokenizer));
    else
        job_warn(j, "written without a vocabulary (%s)", j->model->tokenizer_error ? j->model->tokenizer_error : "the source has none");
}

struct gguf_file {
    struct output o;            /* first */
    struct gguf_writer *w;
};

static void gguf_discard(struct output *o)
{
    struct gguf_file *g = (struct gguf_file *)o;
    gguf_writer_discard(g->w);
    free(g);
}

static bool gguf_part(struct output *o, struct part *p, struct error *err)
{
    return stream_part(o->job, p, gguf_sink, ((struct gguf_file *)o)->w, err);
}

static bool gguf_commit(struct output *o, struct error *err)
{
    struct gguf_file *g = (struct gguf_file *)o;
    struct kv_list kv;
    bool ok = kv_list_make(&kv, o->job, err) && gguf_writer_metadata(g->w, kv.kv, kv.n, err);
    if (ok) {
        ok = gguf_writer_commit(g->w, err);
        g->w = NULL;
    }
    kv_list_free(&kv);
    gguf_discard(o);
    return ok;
}

struct output *gguf_output(struct job *j, const char *path, struct error *err)
{
    struct kv_list kv = { 0 };
    struct writer_tensor *tensors = mem_new((size_t)j->n_parts, sizeof *tensors, err);
    struct gguf_file *g = tensors ? mem_new(1, sizeof *g, err) : NULL;
    bool ok = g && kv_list_make(&kv, j, err);
    if (ok)
        note_vocabulary(j, &kv);
    for (int i = 0; ok && i < j->n_parts; i++)
        declare(&tensors[i], &j->parts[i]);
    ok = ok && gguf_writer_open(&g->w, path, kv.kv, kv.n, tensors, j->n_parts, err);
    kv_list_free(&kv);
    free(tensors);
    if (!ok) {
        free(g);
        return NULL;
    }
    g->o = (struct output){ j, gguf_part, gguf_commit, gguf_discard };
    return &g->o;
}
