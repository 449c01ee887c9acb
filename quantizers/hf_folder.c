/* hf_folder.c - a Hugging Face folder: model.safetensors, tokenizer files, config.json last, so that a folder that
 * was not finished does not open. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hf.h"

struct item {                   /* what stands behind one or more entries */
    struct part *part;
    int64_t mat;                /* -1: the whole stack */
    bool packed;
};
struct folder {
    struct job *job;
    const struct layout *layout;        /* NULL: nothing packed */
    struct item *items;
    size_t n_items, items_cap;
    struct safetensors_entry *entries;
    size_t n_entries, entries_cap;
    struct arena arena;
    cJSON *left;                /* modules that stay unquantized */
};

static const char *dtype_of(enum format_id f)
{
    return f == FORMAT_F32 ? "F32" : f == FORMAT_F16 ? "F16" : "BF16";
}

static bool add_entry(struct folder *f, const char *name, const char *dtype, int n_dims, const int64_t *dims, struct error *err)
{
    char *copy = arena_str(&f->arena, name, strlen(name), err);
    if (!copy || !mem_grow(&f->entries, &f->entries_cap, f->n_entries + 1, sizeof *f->entries, err))
        return false;
    struct safetensors_entry *e = &f->entries[f->n_entries++];
    *e = (struct safetensors_entry){ .name = copy, .dtype = dtype, .n_dims = n_dims };
    memcpy(e->dims, dims, (size_t)n_dims * sizeof *dims);
    return true;
}

static bool add_item(struct folder *f, struct part *p, int64_t mat, const char *name, struct error *err)
{
    const struct tensor *t = p->source;
    bool packed = f->layout && p->to == f->layout->to;
    if (!mem_grow(&f->items, &f->items_cap, f->n_items + 1, sizeof *f->items, err))
        return false;
    f->items[f->n_items++] = (struct item){ p, mat, packed };
    if (!packed) {
        bool vector = t->rows == 1 && t->mats == 1;
        int64_t dims[3] = { mat < 0 ? t->mats : 1, t->rows, t->cols };
        int skip = vector ? 2 : mat < 0 && t->mats > 1 ? 0 : 1;
        return add_entry(f, name, dtype_of(p->to), 3 - skip, dims + skip, err);
    }
    struct blob b[MOST_BLOBS];
    int n;
    if (!f->layout->pack(f->job, p, mat, false, b, &n, err))
        return false;
    for (int i = 0; i < n; i++) {
        char full[256];
        snprintf(full, sizeof full, "%.*s%s", (int)(strlen(name) - strlen(".weight")), name, b[i].suffix);
        if (!add_entry(f, full, b[i].dtype, b[i].n_dims, b[i].dims, err))
            return false;
    }
    return true;
}

static bool add_part(struct folder *f, struct part *p, struct error *err)
{
    const struct tensor *t = p->source;
    const struct model *m = f->job->model;
    char name[160];
    if (!hf_name(m, t->name, 0, name, sizeof name))
        return strcmp(t->name, "rope_freqs.weight") == 0 ||
               fail(err, STATUS_UNSUPPORTED, "%s: tensor %s has no Hugging Face name", m->path, t->name);
    if (!hf_expert_apart(m, t->name))
        return add_item(f, p, -1, name, err);
    for (int64_t e = 0; e < t->mats; e++)
        if (!hf_name(m, t->name, (int)e, name, sizeof name) || !add_item(f, p, e, name, err))
            return false;
    return true;
}

/* ---- contents ---- */

/* Norms of Gemma 2 and 3 are stored less one in folders; a GGUF holds them whole. */
static bool less_one(const struct model *m, const struct tensor *t)
{
    return m->source == MODEL_GGUF && (strcmp(m->config.arch, "gemma2") == 0 || strcmp(m->config.arch, "gemma3") == 0) &&
           str_ends(t->name, "norm.weight");
}

static bool write_rows(const struct job *j, const struct item *it, struct safetensors_writer *w, struct error *err)
{
    struct part *p = it->part;
    const struct tensor *t = p->source;
    float *x = mem_new((size_t)t->cols, sizeof *x, err);
    uint8_t *out = mem_new((size_t)format_row_bytes(p->to, t->cols), 1, err);
    bool ok = x && out;
    for (int64_t m = it->mat < 0 ? 0 : it->mat; ok && m < (it->mat < 0 ? t->mats : it->mat + 1); m++)
        for (int64_t r = 0; ok && r < t->rows; r++) {
            ok = part_row(p, m, part_source_row(p, r), x, err);
            for (int64_t c = 0; ok && c < t->cols; c++)
                x[c] -= t->add + (less_one(j->model, t) ? 1.0f : 0);
            ok = ok && quantize_row(p->to, x, NULL, out, t->cols) &&
                 safetensors_writer_data(w, out, (uint64_t)format_row_bytes(p->to, t->cols), err);
        }
    free(x);
    free(out);
    if (!p->method)
        p->method = p->to == t->format ? "copy" : "convert";
    return ok;
}

static bool write_item(struct folder *f, const struct item *it, struct safetensors_writer *w, struct error *err)
{
    struct blob b[MOST_BLOBS] = { { 0 } };
    int n = 0;
    if (!it->packed)
        return write_rows(f->job, it, w, err);
    bool ok = f->layout->pack(f->job, it->part, it->mat < 0 ? 0 : it->mat, true, b, &n, err);
    for (int i = 0; i < n; i++) {
        uint64_t bytes = strcmp(b[i].dtype, "U8") == 0 ? 1 : strcmp(b[i].dtype, "F16") == 0 ? 2 : 4;
        for (int d = 0; d < b[i].n_dims; d++)
            bytes *= (uint64_t)b[i].dims[d];
        ok = ok && safetensors_writer_data(w, b[i].bytes, bytes, err);
        free(b[i].bytes);
    }
    if (!it->part->method)
        it->part->method = f->job->method->info.name;
    return ok;
}

static bool write_weights(struct folder *f, const char *dir, struct error *err)
{
    struct safetensors_writer *w = NULL;
    struct text path = { 0 };
    char version[64];
    snprintf(version, sizeof version, "qdelta %s", f->job->o->program_version ? f->job->o->program_version : "");
    const char *metadata[] = { "format", "pt", "quantizer", version, "notes", text_str(&f->job->notes), "fallbacks", text_str(&f->job->fallbacks), NULL };
    path_join(&path, dir, "model.safetensors");
    bool ok = safetensors_writer_open(&w, text_str(&path), f->entries, (int)f->n_entries, metadata, err);
    for (size_t i = 0; ok && i < f->n_items; i++) {
        job_progress(f->job, "write", (int)i, (int)f->n_items);
        ok = write_item(f, &f->items[i], w, err);
    }
    if (ok)
        ok = safetensors_writer_commit(w, err);
    else
        safetensors_writer_discard(w);
    if (ok)
        file_size(text_str(&path), &f->job->report->bytes_out, NULL);
    text_free(&path);
    return ok;
}

/* Files that go along unchanged when the source is a folder. */
static bool copy_companions(const struct job *j, const char *dir, struct error *err)
{
    static const char *const names[] = { "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model",
                                         "generation_config.json", "chat_template.jinja", "added_tokens.json", "vocab.json", "merges.txt" };
    const char *path = j->model->path, *base = dir_exists(path) ? path + strlen(path) : path_base(path);
    bool ok = true;
    for (size_t i = 0; ok && i < ARRAY_LEN(names); i++) {
        struct text from = { 0 }, to = { 0 }, data = { 0 };
        text_add(&from, path, (size_t)(base - path));
        text_puts(&from, from.len && from.data[from.len - 1] != '/' ? "/" : "");
        text_puts(&from, names[i]);
        path_join(&to, dir, names[i]);
        if (file_exists(text_str(&from)))
            ok = file_read(text_str(&from), 0, &data, err) && file_write(text_str(&to), text_str(&data), data.len, err);
        text_free(&from);
        text_free(&to);
        text_free(&data);
    }
    return ok;
}

/* A vocabulary that tokenizer.json has no words for leaves a folder without one. */
static bool write_companions(const struct job *j, const char *dir, struct error *err)
{
    if (j->model->source == MODEL_HF)
        return copy_companions(j, dir, err);
    if (j->model->tokenizer && !model_write_tokenizer(j->model, dir, err)) {
        if (err->status != STATUS_UNSUPPORTED)
            return false;
        job_warn(j, "no tokenizer.json: %s", err->text);
    }
    return true;
}

/* Modules that a quantizing library must leave alone: those that this file keeps whole. */
static void skip_list(const struct folder *f, cJSON *q)
{
    bool bnb = strcmp(f->job->method->info.name, "nf4") == 0 || strcmp(f->job->method->info.name, "fp4") == 0;
    cJSON *list = cJSON_AddArrayToObject(q, bnb ? "llm_int8_skip_modules" : "modules_to_not_convert");
    cJSON_AddItemToArray(list, cJSON_CreateString("lm_head"));
    for (size_t i = 0; i < f->n_items; i++) {
        const struct item *it = &f->items[i];
        char name[160];
        if (it->packed || it->part->source->rows == 1 || it->part->layer < 0 ||
            !hf_name(f->job->model, it->part->source->name, it->mat < 0 ? 0 : (int)it->mat, name, sizeof name) || !str_ends(name, ".weight"))
            continue;
        name[strlen(name) - strlen(".weight")] = '\0';
        cJSON_AddItemToArray(list, cJSON_CreateString(name));
    }
}

static bool write_config(const struct folder *f, const char *dir, const char *dtype, struct error *err)
{
    cJSON *o = hf_config(f->job->model, dtype, err);
    if (!o)
        return false;
    if (f->layout) {
        cJSON *q = f->layout->config(f->job);
        skip_list(f, q);
        cJSON_AddItemToObject(o, "quantization_config", q);
    }
    char *text = cJSON_Print(o);
    struct text path = { 0 };
    path_join(&path, dir, "config.json");
    bool ok = text ? file_write(text_str(&path), text, strlen(text), err) : fail(err, STATUS_MEMORY, "out of memory for config.json");
    text_free(&path);
    cJSON_free(text);
    cJSON_Delete(o);
    return ok;
}

static void folder_free(struct folder *f)
{
    free(f->items);
    free(f->entries);
    arena_free(&f->arena);
}

/* The unquantized weights' type: that of most of them. */
static const char *plain_dtype(const struct job *j)
{
    int64_t n[FORMAT_COUNT] = { 0 };
    for (int i = 0; i < j->n_parts; i++)
        n[j->parts[i].source->format] += j->parts[i].source->cols * j->parts[i].source->rows * j->parts[i].source->mats;
    return n[FORMAT_F32] > n[FORMAT_BF16] && n[FORMAT_F32] > n[FORMAT_F16] ? "float32" : n[FORMAT_F16] > n[FORMAT_BF16] ? "float16" : "bfloat16";
}

bool write_hf_folder(struct job *j, const char *out, struct error *err)
{
    struct folder f = { .job = j, .layout = j->method ? layout_find(j->method->info.name, j->format) : NULL };
    struct text config = { 0 };
    bool ok = make_dirs(out, err);
    path_join(&config, out, "config.json");
    if (ok && file_exists(text_str(&config)))
        unlink(text_str(&config));      /* whatever stood there is no whole model from now on */
    for (int i = 0; ok && i < j->n_parts; i++)
        ok = add_part(&f, &j->parts[i], err);
    ok = ok && write_weights(&f, out, err) && write_companions(j, out, err) && write_config(&f, out, plain_dtype(j), err);
    text_free(&config);
    folder_free(&f);
    return ok;
}
