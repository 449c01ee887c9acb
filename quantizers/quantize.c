/* quantize.c - the frame of a run: method and recipe by name, checks, the list of parts, the report. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "blocks.h"
#include "calibrate.h"
#include "hf.h"
#include "imatrix.h"
#include "job.h"

/* ---- settings, messages ---- */

static const struct quantizer_setting common_settings[] = {
    { "shard", "5000", "MiB of a folder's model file before the next one begins", NULL, 1, 1e7 },
    { 0 },
};

const struct quantizer_setting *quantizer_common_settings(void)
{
    return common_settings;
}

static const struct quantizer_setting *find_row(const struct quantizer_setting *rows, const char *key, size_t n)
{
    for (; rows && rows->key; rows++)
        if (strlen(rows->key) == n && strncmp(rows->key, key, n) == 0)
            return rows;
    return NULL;
}

static const struct quantizer_setting *setting_row(const struct job *j, const char *key, size_t n)
{
    const struct quantizer_setting *own = find_row(j->method->info.settings, key, n);
    return own ? own : find_row(common_settings, key, n);
}

/* The value of a row: the last one given, or its default. */
static const char *setting_value(const struct job *j, const struct quantizer_setting *row)
{
    const char *value = row->def;
    size_t n = strlen(row->key);
    for (const char *const *s = j->o->settings; s && *s; s++)
        if (strncmp(*s, row->key, n) == 0 && (*s)[n] == '=')
            value = *s + n + 1;
    return value;
}

/* Index of word among "one|two|three", -1: none of them. */
static int word_index(const char *words, const char *word)
{
    size_t n = strlen(word);
    for (int i = 0;; i++) {
        size_t len = strcspn(words, "|");
        if (len == n && strncmp(words, word, n) == 0)
            return i;
        if (!words[len])
            return -1;
        words += len + 1;
    }
}

double setting_number(const struct job *j, const char *key)
{
    double x = 0;
    const struct quantizer_setting *row = setting_row(j, key, strlen(key));
    parse_double(setting_value(j, row), row->lo, row->hi, &x);
    return x;
}

int setting_word(const struct job *j, const char *key)
{
    const struct quantizer_setting *row = setting_row(j, key, strlen(key));
    return word_index(row->words, setting_value(j, row));
}

static bool unknown_setting(const struct job *j, const char *given, struct error *err)
{
    const struct quantizer_setting *const lists[] = { j->method->info.settings, common_settings };
    struct text known = { 0 };
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        for (const struct quantizer_setting *s = lists[i]; s && s->key; s++)
            text_printf(&known, "%s%s", known.len ? ", " : "", s->key);
    fail(err, STATUS_USAGE, "method %s has no setting %s; it has: %s", j->method->info.name, given, text_str(&known));
    text_free(&known);
    return false;
}

static bool check_settings(const struct job *j, struct error *err)
{
    for (const char *const *s = j->o->settings; s && *s; s++) {
        size_t n = strcspn(*s, "=");
        const struct quantizer_setting *row = setting_row(j, *s, n);
        const char *value = *s + n + 1;
        double x;
        if (!(*s)[n])
            return fail(err, STATUS_USAGE, "setting %s: expected KEY=VALUE", *s);
        if (!row)
            return unknown_setting(j, *s, err);
        if (row->words && word_index(row->words, value) < 0)
            return fail(err, STATUS_USAGE, "setting %s: expected one of %s", *s, row->words);
        if (!row->words && !parse_double(value, row->lo, row->hi, &x))
            return fail(err, STATUS_USAGE, "setting %s: expected a number from %g to %g", *s, row->lo, row->hi);
    }
    return true;
}

void job_warn(const struct job *j, const char *format, ...)
{
    if (!j->o->warn)
        return;
    char text[1024];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    j->o->warn(j->o->ctx, text);
}

void job_progress(const struct job *j, const char *what, int done, int total)
{
    if (j->o->progress)
        j->o->progress(j->o->ctx, what, done, total);
}

uint64_t peak_rss(void)
{
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) == 0 ? (uint64_t)u.ru_maxrss * 1024 : 0;
}

/* ---- parts ---- */

struct part *job_part(const struct job *j, const char *name)
{
    for (int i = 0; i < j->n_parts; i++)
        if (strcmp(j->parts[i].source->name, name) == 0)
            return &j->parts[i];
    return NULL;
}

/* The largest magnitude of a row; a NaN counts as more than infinity. */
static float row_largest(const float *x, int64_t n)
{
    uint32_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    float f;
    memcpy(&f, &most, sizeof f);
    return f;
}

/* No scale of a block exceeds its largest weight, so rows that half precision holds fit into every format.  Of larger
 * ones the format's own rounding tells, whatever a method's search would make of them: it must not clamp in silence.
 * Groups of int4 have half-precision scales in folders: 7.5 of them reach either way. */
static bool row_fits(const struct part *p, const float *x, float most, int64_t row, struct error *err)
{
    const float half = 65504;
    const struct tensor *t = p->source;
    bool fits = true;
    if (most <= half || p->to == t->format)
        return true;
    if (p->to == FORMAT_I4M || p->to == FORMAT_F16) {
        fits = most <= (p->to == FORMAT_F16 ? half : 7.5f * half);
    } else if (formats[p->to].quantized && format_writable(p->to)) {
        struct error ignored;
        struct tensor blocks = { .name = t->name, .format = p->to, .rows = 1, .cols = t->cols, .mats = 1 };
        void *out = mem_new((size_t)format_row_bytes(p->to, t->cols), 1, err);
        if (!out)
            return false;
        blocks.data = out;
        fits = quantize_row(p->to, x, NULL, out, t->cols) && tensor_check_scales(&blocks, 0, 1, &ignored);
        free(out);
    }
    return fits || fail(err, STATUS_INPUT, "tensor %s, row %lld: a weight of %g is too large for %s", t->name, (long long)row, (double)most,
                        p->to == FORMAT_I4M ? "int4 groups" : formats[p->to].name);
}

bool part_row(const struct part *p, int64_t m, int64_t r, float *out, struct error *err)
{
    const struct tensor *t = p->source;
    tensor_row(t, m, r, out);
    float most = row_largest(out, t->cols);
    if (!isfinite(most)) {
        int64_t c = 0;
        if (!tensor_check_scales(t, m * t->rows + r, 1, err))
            return false;
        while (isfinite(out[c]))
            c++;
        return fail(err, STATUS_INPUT, "tensor %s has %g at row %lld, column %lld; expected finite weights", t->name,
                    (double)out[c], (long long)(m * t->rows + r), (long long)c);
    }
    float row = p->row_scale ? 1 / p->row_scale[r] : 1;
    if (p->col_scale)
        for (int64_t c = 0; c < t->cols; c++)
            out[c] *= p->col_scale[c] * row;
    else if (p->row_scale)
        for (int64_t c = 0; c < t->cols; c++)
            out[c] *= row;
    return row_fits(p, out, p->col_scale || p->row_scale ? row_largest(out, t->cols) : most, m * t->rows + r, err);
}

struct read_rows {
    const struct part *p;
    int64_t m;
    float *out;
    bool *bad;
};
static void read_row(void *ctx, int i, int thread)
{
    (void)thread;
    struct read_rows *c = ctx;
    struct error ignored;
    c->bad[i] = !part_row(c->p, c->m, i, c->out + i * c->p->source->cols, &ignored);
}

bool part_matrix(const struct job *j, const struct part *p, int64_t m, float *out, struct error *err)
{
    int rows = (int)p->source->rows;
    struct read_rows c = { p, m, out, mem_new((size_t)rows, sizeof(bool), err) };
    if (!c.bad)
        return false;
    pool_run(j->pool, rows, read_row, &c);
    bool ok = true;
    for (int r = 0; ok && r < rows; r++)
        if (c.bad[r])
            ok = part_row(p, m, r, out, err);
    free(c.bad);
    return ok;
}

/* GGUF holds q and k of the Llama family with rotating pairs side by side, Hugging Face half a head apart. */
static void set_rotary_order(struct part *p, const struct model *m, bool to_gguf)
{
    const char *arch = m->config.arch;
    if ((strcmp(arch, "llama") && strcmp(arch, "smollm3")) || m->config.rope_pairs_adjacent == to_gguf)
        return;
    if (p->layer < 0 || !(strstr(p->source->name, "attn_q.weight") || strstr(p->source->name, "attn_k.weight")))
        return;
    p->head_size = m->config.layers[p->layer].head_size;
    p->to_adjacent = to_gguf;
}

/* Every block of an unpacked layout is d (c - 8) or d c + m with numbers that fp16 holds: then Q4_0 or Q4_1 says the
 * same. */
static bool blocks_fit(const struct tensor *t, bool affine)
{
    const struct format *f = &formats[t->format];
    for (int64_t i = 0, n = t->cols / 32; i < n * t->rows * t->mats; i++) {
        int8_t codes[32];
        float scale, min;
        f->to_codes(tensor_at(t, i / n / t->rows, i / n % t->rows) + i % n * f->block_bytes, codes, &scale, &min, f->block);
        bool d = f16_to_f32(f32_to_f16(scale)) == scale, m = f16_to_f32(f32_to_f16(min)) == min;
        if (!d || !(affine ? m : min == -8 * scale))
            return false;
    }
    return true;
}

/* The format that keeps the values of t when no recipe asks for another. */
static enum format_id faithful(const struct job *j, const struct tensor *t, bool to_gguf)
{
    if (to_gguf && ((t->rows == 1 && t->mats == 1) || strstr(t->name, "ffn_gate_inp")))
        return FORMAT_F32;
    if (!to_gguf)
        return formats[t->format].quantized ? FORMAT_F32 : t->format;
    if (formats[t->format].ggml_type >= 0)
        return t->col_perm ? FORMAT_F32 : t->format;
    bool nibbles = format_unpacked_4(t->format) && !t->col_perm;
    if (nibbles && blocks_fit(t, false))
        return FORMAT_Q4_0;
    if (nibbles && blocks_fit(t, true))
        return FORMAT_Q4_1;
    job_warn(j, "%s: no GGUF type holds these %s values exactly; written as f32", t->name, formats[t->format].name);
    return FORMAT_F32;
}

static bool make_parts(struct job *j, bool to_gguf, struct error *err)
{
    const struct model *m = j->model;
    const struct layout *l = layout_find(j->method->info.name, j->format);
    enum format_id *to = mem_new((size_t)m->n_tensors, sizeof *to, err);
    j->parts = to ? mem_new((size_t)m->n_tensors, sizeof *j->parts, err) : NULL;
    bool ok = j->parts != NULL;
    if (ok && j->recipe)
        ok = recipe_apply(j->recipe, m, j->imatrix != NULL, j->o, to, err);
    for (int layer = -1; ok && layer < m->config.n_layers; layer++)
        for (int i = 0; i < m->n_tensors; i++) {
            const struct tensor *t = &m->tensors[i];
            if (tensor_layer(t->name) != layer)
                continue;
            struct part *p = &j->parts[j->n_parts++];
            bool packed = l && layer >= 0 && layout_takes(l, m, t);
            *p = (struct part){ .source = t, .to = packed ? l->to : j->recipe ? to[i] : faithful(j, t, to_gguf), .layer = layer,
                                .loss = NAN, .rms = NAN };
            p->matrix = packed || (j->recipe && layer >= 0 && formats[to[i]].quantized);
            set_rotary_order(p, m, to_gguf);
        }
    free(to);
    int matrices = 0;
    for (int i = 0; ok && i < j->n_parts; i++)
        matrices += j->parts[i].matrix;
    if (ok && l && !matrices)
        return fail(err, STATUS_INPUT, "%s: no matrix has rows that divide into groups of %d for %s", m->path, l->group, l->name);
    if (ok && j->n_parts != m->n_tensors)
        return fail(err, STATUS_FORMAT, "%s has %d tensors in layers beyond its %d layers", m->path,
                    m->n_tensors - j->n_parts, m->config.n_layers);
    return ok;
}

/* ---- output ---- */

bool job_write(struct job *j, int layer, struct error *err)
{
    bool gguf = str_ends(j->out_path, ".gguf"), ok = true;
    if (!j->out && !(j->out = (gguf ? gguf_output : folder_output)(j, j->out_path, err)))
        return false;
    for (; ok && j->written < j->n_parts && j->parts[j->written].layer <= layer; j->written++) {
        struct part *p = &j->parts[j->written];
        if (layer >= j->model->config.n_layers)
            job_progress(j, "write", j->written, j->n_parts);
        ok = j->out->part(j->out, p, err);
        model_forget(j->model, p->source, 0, p->source->rows * p->source->mats);
        free(p->data);
        p->data = NULL;
    }
    return ok;
}

static bool job_commit(struct job *j, struct error *err)
{
    if (!job_write(j, j->model->config.n_layers, err))
        return false;
    job_progress(j, "write", j->n_parts, j->n_parts);
    struct output *out = j->out;
    j->out = NULL;
    return out->commit(out, err);
}

/* ---- checks before anything is written ---- */

/* A file can be made at path; leaves nothing.  there: the folder out need not be made for that. */
static bool can_write(const char *out, const char *path, bool there, struct error *err)
{
    struct file_writer probe = { 0 };
    bool ok = (there || make_dirs(out, err)) && file_writer_open(&probe, path, err);
    file_writer_discard(&probe);
    if (!there)
        rmdir(out);
    return ok;
}

/* The output's name leads to no file that is read, and something can be written there. */
static bool check_output(const struct job *j, const char *out, bool gguf, struct error *err)
{
    const struct { const char *path, *what; } read[] = { { j->o->calib, "calibration text" }, { j->o->imatrix_in, "imatrix" } };
    struct text inner = { 0 };
    path_join(&inner, out, "config.json");
    bool ok = true;
    if (file_same(j->model->path, out) || model_uses_file(j->model, out) || (!gguf && model_uses_file(j->model, text_str(&inner))))
        ok = fail(err, STATUS_INPUT, "%s: the output is the input; choose another name", out);
    for (size_t i = 0; ok && i < ARRAY_LEN(read); i++)
        if (read[i].path && file_same(read[i].path, out))
            ok = fail(err, STATUS_INPUT, "%s: the output is the %s; choose another name", out, read[i].what);
    if (ok && gguf && dir_exists(out))
        ok = fail(err, STATUS_INPUT, "%s is a folder, expected a .gguf file name", out);
    if (ok && !gguf && file_exists(out))
        ok = fail(err, STATUS_INPUT, "%s is a file; a name that does not end in .gguf is a folder to write", out);
    ok = ok && can_write(out, gguf ? out : text_str(&inner), gguf || dir_exists(out), err);
    text_free(&inner);
    return ok;
}

static bool find_method(struct job *j, const char *spec, struct error *err)
{
    const char *colon = strchr(spec, ':');
    size_t n = colon ? (size_t)(colon - spec) : strlen(spec);
    const char *names[32];
    for (int i = 0; i < n_methods && i < 32; i++) {
        names[i] = methods[i].info.name;
        if (strlen(names[i]) == n && strncmp(names[i], spec, n) == 0)
            j->method = &methods[i];
    }
    if (!j->method) {
        char word[64];
        snprintf(word, sizeof word, "%.*s", (int)n, spec);
        const char *near = nearest_word(word, names, (size_t)n_methods);
        if (recipe_find(spec))
            return fail(err, STATUS_USAGE, "-q %s names a format without a method; for plain rounding say rtn:%s", spec, spec);
        return fail(err, STATUS_USAGE, "no quantization method %.*s%s%s%s", (int)n, spec, near ? "; did you mean " : "",
                    near ? near : "", near ? "?" : "");
    }
    j->format = colon ? colon + 1 : j->method->default_format;
    for (int i = 0; j->method->info.formats[i]; i++)
        if (strcmp(j->method->info.formats[i], j->format) == 0)
            return true;
    struct text list = { 0 };
    for (int i = 0; j->method->info.formats[i]; i++)
        text_printf(&list, "%s%s", i ? ", " : "", j->method->info.formats[i]);
    fail(err, STATUS_USAGE, "method %s does not write %s; it writes %s", j->method->info.name, j->format, text_str(&list));
    text_free(&list);
    return false;
}

/* ---- report ---- */

static bool fill_report(struct job *j, const char *out, int64_t started, struct error *err)
{
    struct quantize_report *r = j->report;
    double weights = 0;
    r->rows = mem_new((size_t)j->n_parts, sizeof *r->rows, err);
    if (!r->rows)
        return false;
    for (int i = 0; i < j->n_parts; i++, r->n++) {
        const struct part *p = &j->parts[i];
        struct quantize_row *row = &r->rows[i];
        *row = (struct quantize_row){ NULL, p->source->format, p->to, p->method ? p->method : "copy", p->loss, p->rms };
        if (!(row->name = str_dup(p->source->name, err)))
            return false;
        double n = (double)(p->source->cols * p->source->rows * p->source->mats);
        weights += n;
        r->bits_per_weight += 8.0 * (double)(p->source->rows * p->source->mats) *
                              (double)format_row_bytes(p->to, p->source->cols);
    }
    r->bits_per_weight /= weights;
    r->bytes_in = j->model->file_bytes;
    if (file_exists(out))
        file_size(out, &r->bytes_out, NULL);
    if (layout_find(j->method->info.name, j->format))   /* scales are laid out otherwise there */
        r->bits_per_weight = 8.0 * (double)r->bytes_out / weights;
    r->seconds = (double)(clock_ns() - started) * 1e-9;
    r->peak_bytes = peak_rss();
    return true;
}

void quantize_report_free(struct quantize_report *r)
{
    for (int i = 0; i < r->n; i++)
        free(r->rows[i].name);
    free(r->rows);
    *r = (struct quantize_report){ 0 };
}

static void job_close(struct job *j)
{
    for (int i = 0; i < j->n_parts; i++) {
        free(j->parts[i].data);
        free(j->parts[i].col_scale);
        free(j->parts[i].row_scale);
    }
    if (j->out)
        j->out->discard(j->out);
    free(j->parts);
    imatrix_free(j->imatrix);
    calibration_free(j->calibration);
    text_free(&j->fallbacks);
    text_free(&j->notes);
    pool_close(j->pool);
}

/* GGUF and folder each hold what the other cannot; the name of the output says which one is meant. */
static bool check_kind(const struct job *j, const char *out, bool gguf, struct error *err)
{
    bool folder = layout_find(j->method->info.name, j->format) != NULL;
    bool plain = j->method == method_convert && (!j->recipe || !formats[j->recipe->base].quantized);
    if (gguf && folder)
        return fail(err, STATUS_USAGE, "%s: %s:%s is a Hugging Face folder; the output's name must not end in .gguf", out,
                    j->method->info.name, j->format);
    return gguf || folder || plain ||
           fail(err, STATUS_USAGE, "%s: %s%s%s is written as GGUF; the output's name must end in .gguf", out, j->method->info.name,
                j->format ? ":" : "", j->format ? j->format : "");
}

/* Weights that would be refused while writing are refused before minutes of calibration. */
static bool prepare(struct job *j, struct error *err)
{
    bool ok = true;
    for (int i = 0; ok && j->method->prepare && i < j->n_parts; i++) {
        const struct tensor *t = j->parts[i].source;
        ok = part_check(j, &j->parts[i], err);
        model_forget(j->model, t, 0, t->rows * t->mats);
    }
    return ok && (!j->method->prepare || j->method->prepare(j, err));
}

static bool run(struct job *j, const char *out, struct error *err)
{
    int64_t started = clock_ns();
    bool gguf = str_ends(out, ".gguf");
    *j->report = (struct quantize_report){ 0 };
    j->out_path = out;
    bool ok = check_kind(j, out, gguf, err) && check_output(j, out, gguf, err) && pool_open(&j->pool, j->o->threads, err) &&
              (!j->method->load || j->method->load(j, err)) && make_parts(j, gguf, err) &&
              prepare(j, err) && job_commit(j, err) && fill_report(j, out, started, err);
    job_close(j);
    if (!ok)
        quantize_report_free(j->report);
    return ok;
}

bool quantize_model(const struct model *m, const char *out, const struct quantize_options *o,
                    struct quantize_report *report, struct error *err)
{
    struct job j = { .model = m, .o = o, .report = report };
    if (!find_method(&j, o->method, err) || !check_settings(&j, err))
        return false;
    if (model_is_quantized(m)) {
        if (!o->requantize)
            return fail(err, STATUS_INPUT, "%s is quantized already (%s); quantize from the original, or allow a second "
                        "rounding with --requantize", m->path, m->recipe);
        job_warn(&j, "%s is quantized already (%s): what it lost stays lost, and its errors add to the new ones", m->path, m->recipe);
    }
    j.recipe = recipe_find(j.format);
    return run(&j, out, err) || fail_in(err, "quantize %s", o->method);
}

bool convert_model(const struct model *m, const char *out, const char *recipe, const struct quantize_options *o,
                   struct quantize_report *report, struct error *err)
{
    struct job j = { .model = m, .o = o, .report = report, .method = method_convert, .format = recipe };
    if (recipe && !(j.recipe = recipe_find(recipe)))
        return fail(err, STATUS_USAGE, "no recipe %s; `qdelta list methods` names them", recipe);
    if (!check_settings(&j, err))
        return false;
    return run(&j, out, err) || fail_in(err, "convert %s", m->path);
}
