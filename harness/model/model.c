/* model.c - opening and closing a model, and looking things up in it. */
#include "files.h"

#include <stdlib.h>

/* ---- tensors ---- */

static void permute_row(const struct tensor *t, const float *stored, float *out)
{
    for (int64_t j = 0; j < t->cols; j++)
        out[t->col_perm[j]] = stored[j];
}

void tensor_row(const struct tensor *t, int64_t m, int64_t r, float *out)
{
    const uint8_t *row = tensor_at(t, m, r);
    if (!t->col_perm) {
        formats[t->format].to_f32(row, out, t->cols);
    } else {
        /* In pieces of a block, so that no row-sized buffer is needed. */
        int block = formats[t->format].block, bytes = formats[t->format].block_bytes;
        float piece[256];
        for (int64_t j = 0; j < t->cols; j += block, row += bytes) {
            struct tensor part = { .cols = block, .col_perm = t->col_perm + j };
            formats[t->format].to_f32(row, piece, block);
            permute_row(&part, piece, out);
        }
    }
    for (int64_t j = 0; t->add != 0 && j < t->cols; j++)
        out[j] += t->add;
}

const struct tensor *model_find(const struct model *m, const char *name)
{
    int64_t i;
    return m->files && map_get(&m->files->tensor_index, name, strlen(name), &i) ? &m->tensors[i] : NULL;
}

bool model_tensor(const struct model *m, const char *name, int64_t rows, int64_t cols, int64_t mats, const struct tensor **out,
                  struct error *err)
{
    const struct tensor *t = model_find(m, name);
    if (!t)
        return fail(err, STATUS_FORMAT, "%s: no tensor %s", m->path, name);
    if (t->rows != rows || t->cols != cols || t->mats != mats)
        return fail(err, STATUS_FORMAT, "%s: %s is [%lld x %lld x %lld], expected [%lld x %lld x %lld]", m->path, name, (long long)t->mats,
                    (long long)t->rows, (long long)t->cols, (long long)mats, (long long)rows, (long long)cols);
    *out = t;
    return true;
}

void model_forget(const struct model *m, const struct tensor *t, int64_t first, int64_t n)
{
    for (int64_t rows; n > 0; first += rows, n -= rows) {
        int64_t left = t->rows - first % t->rows;
        rows = t->data || n < left ? n : left;
        uint64_t bytes = (uint64_t)(rows * format_row_bytes(t->format, t->cols));
        for (int i = 0; m->files && i < m->files->n_maps; i++)
            if (mapping_forget(&m->files->maps[i], tensor_at(t, first / t->rows, first % t->rows), bytes))
                break;
    }
}

bool model_uses_file(const struct model *m, const char *path)
{
    for (int i = 0; m->files && i < m->files->n_maps; i++)
        if (file_same(m->files->paths[i], path))
            return true;
    return m->files && m->files->metadata_path && file_same(m->files->metadata_path, path);
}

bool model_is_quantized(const struct model *m)
{
    for (int i = 0; i < m->n_tensors; i++)
        if (formats[m->tensors[i].format].quantized)
            return true;
    return false;
}

/* Where the blocks keep their scales and mins, so that looking at them costs a load or two a block; formats without a
 * row here (all rare) are decoded. */
static const struct scale_places {
    int n, width;               /* numbers; bytes of each */
    int at[2];
} scale_places[FORMAT_COUNT] = {
    [FORMAT_Q4_0] = { 1, 2, { 0 } },     [FORMAT_Q4_1] = { 2, 2, { 0, 2 } },   [FORMAT_Q5_0] = { 1, 2, { 0 } },    [FORMAT_Q5_1] = { 2, 2, { 0, 2 } },
    [FORMAT_Q8_0] = { 1, 2, { 0 } },     [FORMAT_Q2_K] = { 2, 2, { 80, 82 } }, [FORMAT_Q3_K] = { 1, 2, { 108 } },  [FORMAT_Q4_K] = { 2, 2, { 0, 2 } },
    [FORMAT_Q5_K] = { 2, 2, { 0, 2 } },  [FORMAT_Q6_K] = { 1, 2, { 208 } },    [FORMAT_IQ4_NL] = { 1, 2, { 0 } },  [FORMAT_IQ4_XS] = { 1, 2, { 0 } },
    [FORMAT_IQ2_XXS] = { 1, 2, { 0 } },  [FORMAT_IQ2_XS] = { 1, 2, { 0 } },    [FORMAT_IQ2_S] = { 1, 2, { 0 } },   [FORMAT_IQ3_XXS] = { 1, 2, { 0 } },
    [FORMAT_IQ3_S] = { 1, 2, { 0 } },    [FORMAT_IQ1_S] = { 1, 2, { 0 } },     [FORMAT_TQ1_0] = { 1, 2, { 52 } },  [FORMAT_TQ2_0] = { 1, 2, { 64 } },
    [FORMAT_Q1_0] = { 1, 2, { 0 } },     [FORMAT_Q2_0] = { 1, 2, { 0 } },
    [FORMAT_I4Z] = { 1, 2, { 0 } },      [FORMAT_I4H] = { 2, 2, { 0, 2 } },   [FORMAT_I4M] = { 2, 4, { 0, 4 } },   [FORMAT_I8M] = { 2, 4, { 0, 4 } },     [FORMAT_NF4] = { 1, 4, { 0 } },       [FORMAT_FP4] = { 1, 4, { 0 } },
    [FORMAT_F8] = { 1, 4, { 0 } },       [FORMAT_F4] = { 2, 4, { 0, 4 } },
};

static bool places_finite(const struct scale_places *p, const uint8_t *block)
{
    for (int i = 0; i < p->n; i++) {
        uint16_t half;
        uint32_t word;
        memcpy(&half, block + p->at[i], 2);
        memcpy(&word, block + p->at[i], p->width == 4 ? 4 : 2);
        if (p->width == 4 ? (word & 0x7f800000) == 0x7f800000 : (half & 0x7c00) == 0x7c00)
            return false;
    }
    return true;
}

static bool decoded_finite(const struct format *f, const uint8_t *block)
{
    enum { MOST = 256 };
    int8_t codes[MOST];
    float scale[MOST / 16] = { 0 }, min[MOST / 16] = { 0 }, sum = 0;
    f->to_codes(block, codes, scale, f->has_min ? min : NULL, f->block);
    for (int s = 0; s < MOST / 16; s++)
        sum += 0 * scale[s] + 0 * min[s];       /* 0, or NaN as soon as one is not finite */
    return sum == 0;
}

/* The first scale or min of some rows that is no finite number. */
bool tensor_check_scales(const struct tensor *t, int64_t first_row, int64_t n_rows, struct error *err)
{
    const struct format *f = &formats[t->format];
    const struct scale_places *p = &scale_places[t->format];
    for (int64_t r = first_row; f->quantized && r < first_row + n_rows; r++) {
        const uint8_t *b = tensor_at(t, r / t->rows, r % t->rows);
        for (int64_t j = 0; j < t->cols; j += f->block, b += f->block_bytes)
            if (!(p->n ? places_finite(p, b) : decoded_finite(f, b)))
                return fail(err, STATUS_FORMAT, "tensor %s, row %lld, columns from %lld: the %s block's scale is not a finite number", t->name,
                            (long long)r, (long long)j, f->name);
    }
    return true;
}

/* ---- GGUF ---- */

static bool gguf_has(const struct model *m, const char *name)
{
    return files_raw(m->files, name) != NULL;
}

static bool slot_tensor(const struct model *m, const struct slot *s, struct tensor *out, struct error *err)
{
    struct raw_tensor *r = files_raw(m->files, s->name);
    if (!r)
        return fail(err, STATUS_FORMAT, "%s: no tensor %s", m->path, s->name);
    int64_t d[3] = { 1, 1, 1 };
    for (int i = 0; i < r->n_dims && i < 3; i++)
        d[3 - r->n_dims + i > 0 ? 3 - r->n_dims + i : 0] = r->dims[i];
    if (r->n_dims > 3 || d[0] != s->mats || d[1] != s->rows || d[2] != s->cols)
        return fail(err, STATUS_FORMAT, "%s: %s is [%lld x %lld x %lld], expected [%lld x %lld x %lld] (matrices x rows x columns)", m->path, s->name,
                    (long long)d[0], (long long)d[1], (long long)d[2], (long long)s->mats, (long long)s->rows, (long long)s->cols);
    r->used = true;
    *out = (struct tensor){ .name = r->name, .format = r->format, .cols = s->cols, .rows = s->rows, .mats = s->mats, .data = r->data, .bytes = r->bytes };
    return true;
}

static bool no_strangers(const struct model *m, struct error *err)
{
    for (size_t i = 0; i < m->files->n_raw; i++) {
        const struct raw_tensor *r = &m->files->raw[i];
        if (!r->used && !layout_tolerates(&m->config, r->name))
            return fail(err, STATUS_FORMAT, "%s: unexpected tensor %s; architecture %s as configured has none of that name%s", r->file, r->name,
                        m->config.arch, str_ends(r->name, ".scale") ? " (an NVFP4 GGUF with a scale for the whole matrix is not read)" : "");
    }
    return true;
}

static int by_data(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;
    return x->data < y->data ? -1 : x->data > y->data;
}

static bool bind_gguf(struct model *m, struct error *err)
{
    struct slot *slots;
    size_t n;
    int flags = (gguf_has(m, "blk.0.ffn_gate_up_exps.weight") ? 0 : LAYOUT_SPLIT_EXPERTS) | (gguf_has(m, "rope_freqs.weight") ? LAYOUT_ROPE_FREQS : 0);
    if (!layout_build(&m->config, flags, &slots, &n, err))
        return false;
    m->tensors = arena_new(&m->files->arena, n * sizeof *m->tensors, err);
    bool ok = m->tensors != NULL;
    for (size_t i = 0; ok && i < n; i++)
        ok = slot_tensor(m, &slots[i], &m->tensors[m->n_tensors++], err);
    free(slots);
    if (ok)
        qsort(m->tensors, (size_t)m->n_tensors, sizeof *m->tensors, by_data);
    return ok && no_strangers(m, err);
}

static bool open_gguf(struct model *m, const char *path, struct error *err)
{
    m->source = MODEL_GGUF;
    if (!gguf_read(m->files, path, err) || !foreign_gguf(m->files, path, err))
        return false;
    const char *name = kv_string(m->files, "general.architecture");
    const struct arch *a = name ? arch_find(name) : NULL;
    if (!a)
        return fail(err, name ? STATUS_UNSUPPORTED : STATUS_FORMAT, "%s: architecture %s%s", path, name ? name : "is not named (no general.architecture)",
                    name ? " is not one this program runs (see qdelta list models)" : "");
    m->chat_template = kv_string(m->files, "tokenizer.chat_template");
    return config_from_metadata(m, m->files, a, gguf_has, err) && bind_gguf(m, err);
}

/* ---- open, close ---- */

/* "NAME=PATH" or PATH; a '=' after a '/' belongs to the path. */
static bool split_spec(struct model *m, const char *spec, struct error *err)
{
    const char *eq = strchr(spec, '='), *slash = strchr(spec, '/');
    bool named = eq && eq > spec && (!slash || eq < slash) && !file_exists(spec);
    const char *path = named ? eq + 1 : spec;
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    char *copy = arena_str(&m->files->arena, path, len, err);
    if (!copy)
        return false;
    m->path = copy;
    const char *stem = path_base(copy), *dot = strrchr(stem, '.');
    bool suffix = dot && (!strcmp(dot, ".gguf") || !strcmp(dot, ".safetensors"));
    m->label = named ? arena_str(&m->files->arena, spec, (size_t)(eq - spec), err)
                     : arena_str(&m->files->arena, stem, suffix ? (size_t)(dot - stem) : strlen(stem), err);
    return m->label != NULL;
}

/* Neither suffix: a GGUF under another name, a known other kind, or nothing that we know. */
static bool open_unnamed(struct model *m, struct error *err)
{
    struct mapping map = { 0 };
    bool mapped = mapping_open(&map, m->path, err), gguf = mapped && map.size >= 4 && !memcmp(map.data, "GGUF", 4);
    bool ok = mapped && (gguf || (foreign_file(&map, m->path, err) &&
                                  fail(err, STATUS_FORMAT, "%s: neither a GGUF file, a .safetensors file nor a Hugging Face folder", m->path)));
    mapping_close(&map);
    return ok && open_gguf(m, m->path, err);
}

static bool open_source(struct model *m, struct error *err)
{
    if (dir_exists(m->path) || str_ends(m->path, ".safetensors"))
        return hf_open(m, m->path, err);
    if (!file_exists(m->path))
        return fail(err, STATUS_IO, "%s: no such file or folder", m->path);
    return str_ends(m->path, ".gguf") ? open_gguf(m, m->path, err) : open_unnamed(m, err);
}

static bool index_tensors(struct model *m, struct error *err)
{
    for (int i = 0; i < m->n_tensors; i++)
        if (!map_put(&m->files->tensor_index, m->tensors[i].name, strlen(m->tensors[i].name), i, err))
            return false;
    for (int i = 0; i < m->files->n_maps; i++)
        m->file_bytes += m->files->maps[i].size;
    return describe_weights(m, err);
}

bool model_open(struct model *m, const char *spec, bool with_tokenizer, struct error *err)
{
    *m = (struct model){ .path = "", .label = "" };
    m->files = mem_new(1, sizeof *m->files, err);
    if (m->files && split_spec(m, spec, err) && open_source(m, err) && index_tensors(m, err)) {
        if (with_tokenizer)
            open_tokenizer(m);
        else
            m->tokenizer_error = "the tokenizer was not asked for";
        return true;
    }
    model_close(m);
    return false;
}

void model_close(struct model *m)
{
    tokenizer_free(m->tokenizer);
    files_free(m->files);
    *m = (struct model){ 0 };
}
