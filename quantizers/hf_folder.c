/* hf_folder.c - a Hugging Face folder: model.safetensors or its shards, tokenizer files, config.json last, so that a
 * folder that was not finished does not open.  Files have other names until all are whole; what stood in the folder
 * before stays until then. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hf.h"

struct item {                   /* what stands behind one or more entries */
    struct part *part;
    int64_t mat;                /* -1: the whole stack */
    bool packed;
    size_t first, n;            /* its entries */
    int shard;
};
struct folder {
    struct output o;            /* first */
    const char *dir;
    bool made;                  /* by this run: it goes again if the run fails */
    size_t next;                /* item to be written */
    struct safetensors_writer **shards;
    int n_shards;
    struct text *names;         /* [n_shards] */
    const struct layout *layout;        /* NULL: nothing packed */
    struct item *items;
    size_t n_items, items_cap;
    struct safetensors_entry *entries;
    size_t n_entries, entries_cap;
    struct arena arena;
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
    f->items[f->n_items++] = (struct item){ .part = p, .mat = mat, .packed = packed, .first = f->n_entries };
    if (!packed) {
        bool vector = t->rows == 1 && t->mats == 1;
        int64_t dims[3] = { mat < 0 ? t->mats : 1, t->rows, t->cols };
        int skip = vector ? 2 : mat < 0 && t->mats > 1 ? 0 : 1;
        return add_entry(f, name, dtype_of(p->to), 3 - skip, dims + skip, err);
    }
    struct blob b[MOST_BLOBS];
    int n;
    if (!f->layout->pack(f->o.job, p, mat, false, b, &n, err))
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
    const struct model *m = f->o.job->model;
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
        return write_rows(f->o.job, it, w, err);
    bool ok = f->layout->pack(f->o.job, it->part, it->mat < 0 ? 0 : it->mat, true, b, &n, err);
    for (int i = 0; i < n; i++) {
        uint64_t bytes = strcmp(b[i].dtype, "U8") == 0 ? 1 : strcmp(b[i].dtype, "F16") == 0 ? 2 : 4;
        for (int d = 0; d < b[i].n_dims; d++)
            bytes *= (uint64_t)b[i].dims[d];
        ok = ok && safetensors_writer_data(w, b[i].bytes, bytes, err);
        free(b[i].bytes);
    }
    if (!it->part->method)
        it->part->method = f->o.job->method->info.name;
    return ok;
}

/* ---- shards ---- */

/* Items to shards of at most so many bytes, in order; names of the files. */
static bool plan_shards(struct folder *f, struct error *err)
{
    double room = setting_number(f->o.job, "shard") * 1048576, used = 0;
    for (size_t i = 0; i < f->n_items; i++) {
        struct item *it = &f->items[i];
        double bytes = 0;
        it->n = (i + 1 < f->n_items ? f->items[i + 1].first : f->n_entries) - it->first;
        for (size_t e = it->first; e < it->first + it->n; e++)
            bytes += (double)safetensors_entry_bytes(&f->entries[e]);
        if (!f->n_shards || used + bytes > room) {
            f->n_shards++;
            used = 0;
        }
        used += bytes;
        it->shard = f->n_shards - 1;
    }
    f->shards = mem_new((size_t)f->n_shards, sizeof(struct safetensors_writer *), err);
    f->names = f->shards ? mem_new((size_t)f->n_shards, sizeof *f->names, err) : NULL;
    for (int k = 0; f->names && k < f->n_shards; k++)
        if (f->n_shards == 1)
            text_puts(&f->names[k], "model.safetensors");
        else
            text_printf(&f->names[k], "model-%05d-of-%05d.safetensors", k + 1, f->n_shards);
    return f->names != NULL;
}

/* "__metadata__" of every shard; version: room for words. */
static void metadata_of(const struct folder *f, char *version, size_t size, const char **metadata)
{
    snprintf(version, size, "qdelta %s", f->o.job->o->program_version ? f->o.job->o->program_version : "");
    const char *const pairs[] = { "format", "pt", "quantizer", version, "notes", text_str(&f->o.job->notes),
                                  "fallbacks", text_str(&f->o.job->fallbacks), NULL };
    memcpy(metadata, pairs, sizeof pairs);
}

static bool open_shard(struct folder *f, int shard, struct error *err)
{
    size_t first = f->n_entries, n = 0;
    for (size_t i = 0; i < f->n_items; i++)
        if (f->items[i].shard == shard) {
            first = first < f->items[i].first ? first : f->items[i].first;
            n += f->items[i].n;
        }
    char version[64];
    const char *metadata[9];
    struct text path = { 0 };
    metadata_of(f, version, sizeof version, metadata);
    path_join(&path, f->dir, text_str(&f->names[shard]));
    bool ok = safetensors_writer_open(&f->shards[shard], text_str(&path), f->entries + first, (int)n, metadata, err);
    text_free(&path);
    return ok;
}

static bool folder_part(struct output *o, struct part *p, struct error *err)
{
    struct folder *f = (struct folder *)o;
    bool ok = true;
    for (; ok && f->next < f->n_items && f->items[f->next].part == p; f->next++) {
        const struct item *it = &f->items[f->next];
        ok = (f->shards[it->shard] || open_shard(f, it->shard, err)) && write_item(f, it, f->shards[it->shard], err);
    }
    return ok;
}

/* model.safetensors.index.json: which shard holds what. */
static bool write_index(const struct folder *f, struct error *err)
{
    cJSON *o = cJSON_CreateObject(), *about = cJSON_AddObjectToObject(o, "metadata"), *map = cJSON_AddObjectToObject(o, "weight_map");
    double total = 0;
    for (size_t i = 0; i < f->n_items; i++)
        for (size_t e = f->items[i].first; e < f->items[i].first + f->items[i].n; e++) {
            total += (double)safetensors_entry_bytes(&f->entries[e]);
            cJSON_AddStringToObject(map, f->entries[e].name, text_str(&f->names[f->items[i].shard]));
        }
    cJSON_AddNumberToObject(about, "total_size", total);
    char *text = cJSON_Print(o);
    struct text path = { 0 };
    path_join(&path, f->dir, "model.safetensors.index.json");
    bool ok = text ? file_write(text_str(&path), text, strlen(text), err) : fail(err, STATUS_MEMORY, "out of memory for %s", text_str(&path));
    text_free(&path);
    cJSON_free(text);
    cJSON_Delete(o);
    return ok;
}

static void remove_file(const struct folder *f, const char *name)
{
    struct text path = { 0 };
    path_join(&path, f->dir, name);
    unlink(text_str(&path));
    text_free(&path);
}

/* Whatever stood in the folder is no whole model from now on. */
static void remove_old(const struct folder *f)
{
    static const char *const names[] = { "config.json", "model.safetensors", "model.safetensors.index.json" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        remove_file(f, names[i]);
}

static bool commit_weights(struct folder *f, struct error *err)
{
    char version[64];
    const char *metadata[9];
    bool ok = true;
    metadata_of(f, version, sizeof version, metadata);
    for (int k = 0; ok && k < f->n_shards; k++)
        ok = safetensors_writer_metadata(f->shards[k], metadata, err);
    if (ok)
        remove_old(f);
    for (int k = 0; ok && k < f->n_shards; k++) {
        struct text path = { 0 };
        uint64_t bytes = 0;
        path_join(&path, f->dir, text_str(&f->names[k]));
        ok = safetensors_writer_commit(f->shards[k], err) && file_size(text_str(&path), &bytes, err);
        f->shards[k] = NULL;
        f->o.job->report->bytes_out += bytes;
        text_free(&path);
    }
    return ok && (f->n_shards == 1 || write_index(f, err));
}

/* Files that go along unchanged when the source is a folder. */
static const char *const companions[] = { "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model",
                                          "generation_config.json", "chat_template.jinja", "added_tokens.json", "vocab.json", "merges.txt" };

static bool copy_companions(const struct job *j, const char *dir, struct error *err)
{
    const char *path = j->model->path, *base = dir_exists(path) ? path + strlen(path) : path_base(path);
    bool ok = true;
    for (size_t i = 0; ok && i < ARRAY_LEN(companions); i++) {
        struct text from = { 0 }, to = { 0 }, data = { 0 };
        text_add(&from, path, (size_t)(base - path));
        text_puts(&from, from.len && from.data[from.len - 1] != '/' ? "/" : "");
        text_puts(&from, companions[i]);
        path_join(&to, dir, companions[i]);
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
    bool bnb = strcmp(f->o.job->method->info.name, "nf4") == 0 || strcmp(f->o.job->method->info.name, "fp4") == 0;
    cJSON *list = cJSON_AddArrayToObject(q, bnb ? "llm_int8_skip_modules" : "modules_to_not_convert");
    cJSON_AddItemToArray(list, cJSON_CreateString("lm_head"));
    for (size_t i = 0; i < f->n_items; i++) {
        const struct item *it = &f->items[i];
        char name[160];
        if (it->packed || it->part->source->rows == 1 || it->part->layer < 0 ||
            !hf_name(f->o.job->model, it->part->source->name, it->mat < 0 ? 0 : (int)it->mat, name, sizeof name) || !str_ends(name, ".weight"))
            continue;
        name[strlen(name) - strlen(".weight")] = '\0';
        cJSON_AddItemToArray(list, cJSON_CreateString(name));
    }
}

static bool write_config(const struct folder *f, const char *dir, const char *dtype, struct error *err)
{
    cJSON *o = hf_config(f->o.job->model, dtype, err);
    if (!o)
        return false;
    if (f->layout) {
        cJSON *q = f->layout->config(f->o.job);
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

/* The unquantized weights' type: that of most of them. */
static const char *plain_dtype(const struct job *j)
{
    int64_t n[FORMAT_COUNT] = { 0 };
    for (int i = 0; i < j->n_parts; i++)
        n[j->parts[i].source->format] += j->parts[i].source->cols * j->parts[i].source->rows * j->parts[i].source->mats;
    return n[FORMAT_F32] > n[FORMAT_BF16] && n[FORMAT_F32] > n[FORMAT_F16] ? "float32" : n[FORMAT_F16] > n[FORMAT_BF16] ? "float16" : "bfloat16";
}

static void folder_free(struct folder *f)
{
    for (int k = 0; k < f->n_shards; k++) {
        if (f->shards)
            safetensors_writer_discard(f->shards[k]);
        if (f->names)
            text_free(&f->names[k]);
    }
    free(f->shards);
    free(f->names);
    free(f->items);
    free(f->entries);
    arena_free(&f->arena);
    free(f);
}

/* A folder that this run made goes again. */
static void folder_discard(struct output *o)
{
    struct folder *f = (struct folder *)o;
    const char *made = f->made ? f->dir : NULL;
    if (made) {
        remove_old(f);
        for (int k = 0; f->names && k < f->n_shards; k++)
            remove_file(f, text_str(&f->names[k]));
        for (size_t i = 0; i < ARRAY_LEN(companions); i++)
            remove_file(f, companions[i]);
    }
    folder_free(f);
    if (made)
        rmdir(made);
}

static bool folder_commit(struct output *o, struct error *err)
{
    struct folder *f = (struct folder *)o;
    bool ok = commit_weights(f, err) && write_companions(f->o.job, f->dir, err) && write_config(f, f->dir, plain_dtype(f->o.job), err);
    if (ok)
        folder_free(f);
    else
        folder_discard(o);
    return ok;
}

struct output *folder_output(struct job *j, const char *dir, struct error *err)
{
    struct folder *f = mem_new(1, sizeof *f, err);
    if (!f)
        return NULL;
    f->o = (struct output){ j, folder_part, folder_commit, folder_discard };
    f->dir = dir;
    f->layout = j->method ? layout_find(j->method->info.name, j->format) : NULL;
    f->made = !dir_exists(dir);
    bool ok = make_dirs(dir, err);
    for (int i = 0; ok && i < j->n_parts; i++)
        ok = add_part(f, &j->parts[i], err);
    if (ok && plan_shards(f, err))
        return &f->o;
    folder_discard(&f->o);
    return NULL;
}
