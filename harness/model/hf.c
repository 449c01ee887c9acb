/* hf.c - Hugging Face folders: config.json, safetensors, names of tensors. */
#include "files.h"

#include <stdlib.h>

enum { MAX_CONFIG = 64 << 20 };

/* ---- names ---- */

static bool find_prefix(struct model_files *f, struct error *err)
{
    static const char *const prefixes[] = { "model.language_model.", "language_model.model.", "language_model.", "model.", "" };
    static const char *const names[] = { "weight", "embedding_quantized" };
    char name[96];
    for (size_t i = 0; i < ARRAY_LEN(prefixes) * ARRAY_LEN(names); i++) {
        snprintf(name, sizeof name, "%sembed_tokens.%s", prefixes[i / ARRAY_LEN(names)], names[i % ARRAY_LEN(names)]);
        if (files_raw(f, name)) {
            f->prefix = prefixes[i / ARRAY_LEN(names)];
            return true;
        }
    }
    return fail(err, STATUS_FORMAT, "%s: the weights have no embed_tokens.weight under any known prefix", f->metadata_path);
}

/* The output head stands outside of the decoder's prefix. */
static struct raw_tensor *raw_of(const struct model_files *f, const char *hf, char full[160])
{
    static const char *const heads[] = { "", "language_model.", "model.language_model.", "model." };
    snprintf(full, 160, "%s%s", f->prefix, hf);
    struct raw_tensor *r = files_raw(f, full);
    for (size_t i = 0; !r && !strncmp(hf, "lm_head.", 8) && i < ARRAY_LEN(heads); i++) {
        snprintf(full, 160, "%s%s", heads[i], hf);
        r = files_raw(f, full);
    }
    return r;
}

static bool hf_has(const struct model *m, const char *name)
{
    char full[160];
    if (!strcmp(name, "output.weight"))
        return !m->files->tied;
    if (!strcmp(name, "blk.0.layer_output_scale.weight"))
        return raw_of(m->files, "layers.0.layer_scalar", full) != NULL;
    if (str_ends(name, ".attn_v.weight"))
        return !m->files->k_eq_v;
    return files_raw(m->files, name) != NULL;
}

/* ---- one tensor ---- */

static bool plain_format(enum raw_type type, enum format_id *out)
{
    switch (type) {
    case RAW_F32: *out = FORMAT_F32; return true;
    case RAW_F16: *out = FORMAT_F16; return true;
    case RAW_BF16: *out = FORMAT_BF16; return true;
    default: return false;
    }
}

static bool check_shape(const struct raw_tensor *r, int64_t mats, int64_t rows, int64_t cols, struct error *err)
{
    int64_t d[3] = { 1, 1, 1 };
    for (int i = 0; i < r->n_dims && r->n_dims <= 3; i++)
        d[3 - r->n_dims + i] = r->dims[i];
    if (r->n_dims > 3 || d[0] != mats || d[1] != rows || d[2] != cols)
        return fail(err, STATUS_FORMAT, "%s: %s is [%lld x %lld x %lld], expected [%lld x %lld x %lld] (matrices x rows x columns) by config.json", r->file,
                    r->name, (long long)d[0], (long long)d[1], (long long)d[2], (long long)mats, (long long)rows, (long long)cols);
    return true;
}

static bool plain_tensor(struct model_files *f, struct raw_tensor *r, const struct slot *s, struct tensor *t, struct error *err)
{
    if (!plain_format(r->type, &t->format))
        return fail(err, STATUS_UNSUPPORTED, "%s: %s has dtype %s, expected F32, F16 or BF16", r->file, r->name, r->type_name);
    if (!check_shape(r, s->mats, s->rows, s->cols, err))
        return false;
    r->used = true;
    t->data = r->data;
    t->bytes = r->bytes;
    /* Headers of any length are legal, so the numbers behind one may lie at an odd address. */
    if ((uintptr_t)r->data % (uintptr_t)formats[t->format].block_bytes) {
        void *copy = files_own(f, r->bytes, err);
        if (!copy)
            return false;
        t->data = memcpy(copy, r->data, (size_t)r->bytes);
    }
    return true;
}

/* "model.layers.0.self_attn.q_proj.weight" -> plain data, or the packed parts of its module. */
static bool weight_tensor(struct model_files *f, struct packed *p, const char *hf, const struct slot *s, struct tensor *t, struct error *err)
{
    char full[160];
    bool found = false;
    struct raw_tensor *r = raw_of(f, hf, full);
    if (str_ends(full, ".weight")) {
        char base[160];
        /* A packed output head has no .weight that would tell under which prefix it stands. */
        snprintf(base, sizeof base, "%s", r || strncmp(hf, "lm_head.", 8) ? full : hf);
        base[strlen(base) - 7] = 0;
        if (!packed_load(p, f, base, s, t, &found, err))
            return false;
    }
    if (found)
        return true;
    if (!r) {
        snprintf(full, sizeof full, "%s%s", f->prefix, hf);
        return fail(err, STATUS_FORMAT, "%s: no tensor %s in the weights", f->metadata_path, full);
    }
    return plain_tensor(f, r, s, t, err);
}

/* Experts kept as one matrix each, one describing them.  *differ: their unpacked blocks of 4 bits do, and nothing is in t. */
static bool load_experts(struct model_files *f, struct packed *p, const struct slot *one, int64_t n, struct tensor *t, const uint8_t **parts,
                         bool *differ, struct error *err)
{
    const struct tensor blank = *t;
    *differ = false;
    for (int64_t e = 0; e < n; e++) {
        struct tensor part = blank;
        const char *percent = strstr(one->hf, "%d");
        char hf[128];
        snprintf(hf, sizeof hf, "%.*s%d%s", (int)(percent - one->hf), one->hf, (int)e, percent + 2);
        if (!weight_tensor(f, p, hf, one, &part, err))
            return false;
        if (e == 0)
            *t = part;
        else if (part.format != t->format && format_unpacked_4(part.format) && format_unpacked_4(t->format)) {
            *t = blank;
            *differ = true;
            return true;
        } else if (part.format != t->format || part.col_perm || t->col_perm)
            return fail(err, STATUS_UNSUPPORTED, "%s: experts of %s differ in their format or column order", f->metadata_path, one->name);
        parts[e] = part.data;
    }
    t->bytes *= (uint64_t)n;
    return true;
}

/* They stay where they are; unpacked ones whose blocks differ are unpacked again. */
static bool expert_stack(struct model_files *f, struct packed *p, const struct slot *s, struct tensor *t, struct error *err)
{
    const uint8_t **parts = arena_new(&f->arena, (size_t)s->mats * sizeof *parts, err);
    struct slot one = *s;
    size_t owned = f->n_owned;
    bool differ;
    one.mats = 1;
    if (!parts || !load_experts(f, p, &one, s->mats, t, parts, &differ, err))
        return false;
    if (differ) {
        files_disown(f, owned);
        one.any_scale = true;
        if (!load_experts(f, p, &one, s->mats, t, parts, &differ, err))
            return false;
    }
    t->data = NULL;
    t->parts = parts;
    return true;
}

static bool bind_slot(struct model *m, struct packed *p, const struct arch *a, const struct slot *s, struct tensor *t, struct error *err)
{
    struct model_files *f = m->files;
    *t = (struct tensor){ .name = arena_str(&f->arena, s->name, strlen(s->name), err), .cols = s->cols, .rows = s->rows, .mats = s->mats };
    if (!t->name)
        return false;
    t->add = a->norm_add && s->norm ? 1.0f : 0;
    if (!s->hf[0])
        return plain_tensor(f, files_raw(f, s->name), s, t, err);
    return s->per_expert ? expert_stack(f, p, s, t, err) : weight_tensor(f, p, s->hf, s, t, err);
}

/* ---- what is left over ---- */

static bool all_zero(const struct raw_tensor *r)
{
    for (uint64_t i = 0; i < r->bytes; i++)
        if (r->data[i])
            return false;
    return true;
}

static bool tolerated(const struct model *m, const struct raw_tensor *r)
{
    static const struct { const char *hf, *gguf; } borrowed[] = {
        { "self_attn.k_proj.", "attn_k.weight" }, { "self_attn.v_proj.", "attn_v.weight" }, { "self_attn.k_norm.", "attn_k_norm.weight" },
    };
    size_t skip = strlen(m->files->prefix);
    int layer, at = 0;
    if (str_ends(r->name, "rotary_emb.inv_freq") || str_ends(r->name, ".k_cache_scale") || str_ends(r->name, ".v_cache_scale") ||
        (m->files->tied && strstr(r->name, "lm_head.")))
        return true;
    /* GPTQ writers add a bias of zeros to every matrix. */
    if (str_ends(r->name, ".bias") && all_zero(r))
        return true;
    if (strncmp(r->name, m->files->prefix, skip) || sscanf(r->name + skip, "layers.%d.%n", &layer, &at) != 1 || !at)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(borrowed); i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.%s", layer, borrowed[i].gguf);
        if (!strncmp(r->name + skip + at, borrowed[i].hf, strlen(borrowed[i].hf)) && layout_tolerates(&m->config, name))
            return true;
    }
    return false;
}

static bool no_strangers(const struct model *m, struct error *err)
{
    for (size_t i = 0; i < m->files->n_raw; i++) {
        const struct raw_tensor *r = &m->files->raw[i];
        if (!r->used && !tolerated(m, r))
            return fail(err, STATUS_FORMAT, "%s: unexpected tensor %s; model_type %s as configured has none of that name", r->file, r->name,
                        m->config.arch);
    }
    return true;
}

static bool bind_all(struct model *m, struct packed *p, const struct arch *a, struct error *err)
{
    struct slot *slots;
    size_t n;
    int flags = files_raw(m->files, "rope_freqs.weight") ? LAYOUT_ROPE_FREQS : 0;
    if (!layout_build(&m->config, flags, &slots, &n, err))
        return false;
    m->tensors = arena_new(&m->files->arena, n * sizeof *m->tensors, err);
    bool ok = m->tensors != NULL;
    for (size_t i = 0; ok && i < n; i++)
        ok = bind_slot(m, p, a, &slots[i], &m->tensors[m->n_tensors++], err);
    free(slots);
    return ok && no_strangers(m, err);
}

/* ---- the folder ---- */

/* Among several named templates, the one that is used when nothing else is said. */
static const char *default_template(const cJSON *t)
{
    const cJSON *e;
    if (cJSON_IsString(t))
        return t->valuestring;
    cJSON_ArrayForEach(e, t) {
        const cJSON *name = json_get(e, "name"), *text = json_get(e, "template");
        if (cJSON_IsString(name) && !strcmp(name->valuestring, "default") && cJSON_IsString(text))
            return text->valuestring;
    }
    return NULL;
}

/* Key "chat_template" of a file that need not be there. */
static void template_in(struct model *m, const char *dir, const char *file)
{
    struct text path = { 0 };
    path_join(&path, dir, file);
    cJSON *json = text_ok(&path, NULL) && file_exists(text_str(&path)) ? json_parse_file(text_str(&path), MAX_CONFIG, NULL) : NULL;
    const char *t = json ? default_template(json_get(json, "chat_template")) : NULL;
    if (t)
        m->chat_template = arena_str(&m->files->arena, t, strlen(t), NULL);
    cJSON_Delete(json);
    text_free(&path);
}

/* chat_template.json is where processors of multimodal models kept theirs. */
static bool read_template(struct model *m, const char *dir, struct error *err)
{
    struct text path = { 0 }, text = { 0 };
    path_join(&path, dir, "chat_template.jinja");
    bool ok = text_ok(&path, err);
    if (ok && file_exists(text_str(&path))) {
        ok = file_read(text_str(&path), 1 << 20, &text, err);
        m->chat_template = ok ? arena_str(&m->files->arena, text_str(&text), text.len, err) : NULL;
    } else if (ok) {
        template_in(m, dir, "tokenizer_config.json");
        if (!m->chat_template)
            template_in(m, dir, "chat_template.json");
    }
    text_free(&path);
    text_free(&text);
    return ok;
}

static bool open_config(struct model *m, const char *dir, struct error *err)
{
    struct text path = { 0 };
    path_join(&path, dir, "config.json");
    bool ok = text_ok(&path, err);
    if (ok && !file_exists(text_str(&path)))
        ok = foreign_folder(dir, "config.json", err);
    if (ok) {
        m->files->metadata_path = arena_str(&m->files->arena, text_str(&path), path.len, err);
        m->files->config = m->files->metadata_path ? json_parse_file(text_str(&path), MAX_CONFIG, err) : NULL;
        ok = m->files->config != NULL;
    }
    text_free(&path);
    return ok;
}

static bool open_in(struct model *m, const char *path, const char *dir, struct error *err)
{
    const struct arch *a;
    struct packed *p = NULL;
    /* A layout that is not read is said before anything that it makes look broken. */
    bool ok = open_config(m, dir, err) && packed_open(&p, m->files, dir, err) && safetensors_read(m->files, path, err) && find_prefix(m->files, err) &&
              hf_metadata(m->files, &a, err) && config_from_metadata(m, m->files, a, hf_has, err) && bind_all(m, p, a, err) && read_template(m, dir, err);
    packed_close(p);
    return ok;
}

bool hf_open(struct model *m, const char *path, struct error *err)
{
    bool folder = dir_exists(path);
    size_t len = folder ? strlen(path) : (size_t)(path_base(path) - path);
    const char *dir = arena_str(&m->files->arena, path, len, err);
    m->source = MODEL_HF;
    if (!dir)
        return false;
    return open_in(m, path, len ? dir : ".", err);
}
