/* packed.c - quantized Hugging Face checkpoints: which layout it is, and what all layouts share.
 *
 * Values are kept exactly: a matrix becomes blocks of codes with a scale and min (format.h, I4Z, I4H, I4M and I8M) or a
 * codebook block (NF4, FP4, MXFP4, NVFP4, F8).  Layouts that we do not read are refused by name, with the reason. */
#include "packed.h"

#include <math.h>
#include <stdlib.h>

enum { TILE_ROWS = 64 };

struct packed {
    struct packed_rules rules;
    struct pool *pool;
    bool (*load)(struct module *m, struct tensor *t, bool *found);
    cJSON *owned;               /* quantize_config.json */
};

/* ---- parts of a module ---- */

struct raw_tensor *module_part(const struct module *m, const char *suffix)
{
    char name[256];
    snprintf(name, sizeof name, "%s.%s", m->base, suffix);
    return files_raw(m->f, name);
}

bool module_need(struct module *m, const char *suffix, int64_t d0, int64_t d1, const struct raw_tensor **out)
{
    struct raw_tensor *r = module_part(m, suffix);
    if (!r)
        return fail(m->err, STATUS_FORMAT, "%s: %s has no %s", m->f->metadata_path, m->base, suffix);
    int64_t found1 = r->n_dims > 1 ? r->dims[1] : 0;
    if (r->n_dims != (d1 ? 2 : 1) || r->dims[0] != d0 || found1 != d1)
        return fail(m->err, STATUS_FORMAT, "%s: %s is [%lld x %lld] in %d dimensions, expected [%lld x %lld]", r->file, r->name,
                    (long long)(r->n_dims ? r->dims[0] : 1), (long long)found1, r->n_dims, (long long)d0, (long long)d1);
    r->used = true;
    *out = r;
    return true;
}

bool module_float(struct module *m, const char *suffix, int64_t d0, int64_t d1, const struct raw_tensor **out)
{
    if (!module_need(m, suffix, d0, d1, out))
        return false;
    if ((*out)->type != RAW_F32 && (*out)->type != RAW_F16 && (*out)->type != RAW_BF16)
        return fail(m->err, STATUS_UNSUPPORTED, "%s: %s has dtype %s, expected F32, F16 or BF16", (*out)->file, (*out)->name, (*out)->type_name);
    return true;
}

float raw_float(const struct raw_tensor *r, int64_t i)
{
    float f;
    uint16_t h;
    if (r->type == RAW_F32) {
        memcpy(&f, r->data + 4 * i, sizeof f);
        return f;
    }
    memcpy(&h, r->data + 2 * i, sizeof h);
    return r->type == RAW_F16 ? f16_to_f32(h) : bf16_to_f32(h);
}

bool bad_dtype(const struct module *m, const struct raw_tensor *r, const char *expected)
{
    return fail(m->err, STATUS_FORMAT, "%s: %s has dtype %s and %d dimensions, expected %s", r->file, r->name, r->type_name, r->n_dims, expected);
}

static bool groups_from(struct module *m, const char *scales, int dim)
{
    const struct raw_tensor *s = module_part(m, scales);
    if (!s || s->n_dims != 2)
        return fail(m->err, STATUS_FORMAT, "%s: %s has no %s matrix", m->f->metadata_path, m->base, scales);
    m->groups = s->dims[dim];
    m->group = (m->cols + m->groups - 1) / m->groups;
    return module_float(m, scales, dim ? m->rows : m->groups, dim ? m->groups : m->rows, &m->scale);
}

bool groups_along_columns(struct module *m, const char *scales)
{
    return groups_from(m, scales, 0);
}

bool groups_along_rows(struct module *m, const char *scales)
{
    return groups_from(m, scales, 1);
}

/* ---- column order: groups of g_idx side by side ---- */

static int32_t group_of(const struct module *m, int64_t k)
{
    int32_t g;
    memcpy(&g, m->g_idx->data + 4 * k, sizeof g);
    return g;
}

/* Stable counting sort of the columns by group; *perm NULL when they already stand in order. */
static bool column_order(struct module *m, const int32_t **perm)
{
    *perm = NULL;
    bool sorted = true;
    for (int64_t k = 0; m->g_idx && k < m->cols; k++) {
        if (group_of(m, k) < 0 || group_of(m, k) >= m->groups)
            return fail(m->err, STATUS_FORMAT, "%s: %s[%lld] is %d, there are %lld groups", m->g_idx->file, m->g_idx->name, (long long)k, group_of(m, k),
                        (long long)m->groups);
        sorted &= k == 0 || group_of(m, k) >= group_of(m, k - 1);
    }
    if (sorted)
        return true;
    int64_t *start = mem_new((size_t)m->groups + 1, sizeof *start, m->err);
    int32_t *order = start ? files_own(m->f, (uint64_t)m->cols * sizeof *order, m->err) : NULL;
    for (int64_t k = 0; order && k < m->cols; k++)
        start[group_of(m, k) + 1]++;
    for (int64_t g = 0; order && g < m->groups; g++)
        start[g + 1] += start[g];
    for (int64_t k = 0; order && k < m->cols; k++)
        order[start[group_of(m, k)]++] = (int32_t)k;
    free(start);
    *perm = order;
    return order != NULL;
}

/* Group of 32 stored columns, which must agree. */
static int64_t block_group(const struct module *m, const int32_t *k)
{
    if (!m->g_idx)
        return k[0] / m->group;
    for (int i = 1; i < 32; i++)
        if (group_of(m, k[i]) != group_of(m, k[0]))
            return -1;
    return group_of(m, k[0]);
}

/* ---- by rows, on all threads ---- */

enum { JOBS = 64 };

struct unpacking {
    const struct module *m;
    const struct tensor *t;
    uint8_t *data;
    unpack_rows *rows;
    int64_t rows_a_job;
    bool bad[JOBS];
};

static bool unpack_part(const struct unpacking *u, int i, struct error *err)
{
    struct module m = *u->m;
    int64_t first = i * u->rows_a_job, last = first + u->rows_a_job;
    m.err = err;
    return u->rows(&m, u->t, u->data, first, last < m.rows ? last : m.rows);
}

static void unpack_job(void *ctx, int i, int thread)
{
    struct unpacking *u = ctx;
    struct error ignored;
    (void)thread;
    u->bad[i] = !unpack_part(u, i, &ignored);
}

/* All rows by whole tiles; the first part that fails is done again for what it says. */
static bool unpack_all(struct module *m, const struct tensor *t, uint8_t *data, unpack_rows *rows)
{
    int64_t tiles = (m->rows + TILE_ROWS - 1) / TILE_ROWS, a_job = (tiles + JOBS - 1) / JOBS;
    struct unpacking u = { m, t, data, rows, a_job * TILE_ROWS, { 0 } };
    int jobs = (int)((tiles + a_job - 1) / a_job);
    pool_run(m->pool, jobs, unpack_job, &u);
    for (int i = 0; i < jobs; i++)
        if (u.bad[i])
            return unpack_part(&u, i, m->err);
    return true;
}

bool unpack_tensor(struct module *m, struct tensor *t, unpack_rows *rows)
{
    t->bytes = (uint64_t)(m->rows * format_row_bytes(t->format, m->cols));
    uint8_t *data = files_own(m->f, t->bytes, m->err);
    t->data = data;
    if (!data || !unpack_all(m, t, data, rows))
        return false;
    for (int i = 0; m->weight && i < m->f->n_maps; i++)
        if (mapping_forget(&m->f->maps[i], m->weight->data, m->weight->bytes))
            break;
    return true;
}

/* ---- codes with a scale and min ---- */

static bool is_f16(float x)
{
    return f16_to_f32(f32_to_f16(x)) == x;
}

/* The zero point by which min = -(scale * zero), if it is a byte. */
static bool zero_of(float scale, float min, uint8_t *zero)
{
    float z = scale != 0 ? -min / scale : 0;
    if (!(z >= 0 && z <= 255))
        return false;
    *zero = (uint8_t)(z + 0.5f);
    float back = -(scale * (float)*zero);
    return memcmp(&back, &min, sizeof back) == 0;      /* 0 and -0 are two */
}

static bool fits_zero(float scale, float min)
{
    uint8_t zero;
    return is_f16(scale) && zero_of(scale, min, &zero);
}

static bool fits_halves(float scale, float min)
{
    return is_f16(scale) && is_f16(min);
}

static void put_zero(uint8_t *out, float scale, float min)
{
    uint16_t d = f32_to_f16(scale);
    memcpy(out, &d, 2);
    zero_of(scale, min, out + 2);
}

static void put_halves(uint8_t *out, float scale, float min)
{
    uint16_t d[2] = { f32_to_f16(scale), f32_to_f16(min) };
    memcpy(out, d, 4);
}

static void put_floats(uint8_t *out, float scale, float min)
{
    memcpy(out, &scale, 4);
    memcpy(out + 4, &min, 4);
}

/* Blocks of 32, the smallest first; NULL: whatever the numbers are. */
static const struct block_kind {
    enum format_id format;
    int head;                   /* bytes before the codes */
    bool (*fits)(float scale, float min);
    void (*put)(uint8_t *out, float scale, float min);
} block_kinds[] = {
    { FORMAT_I4Z, 3, fits_zero, put_zero },
    { FORMAT_I4H, 4, fits_halves, put_halves },
    { FORMAT_I4M, 8, NULL, put_floats },
    { FORMAT_I8M, 8, NULL, put_floats },
};

static const struct block_kind *kind_of(enum format_id f)
{
    const struct block_kind *k = block_kinds;
    while (k->format != f)
        k++;
    return k;
}

/* Do the numbers of rows first .. last - 1 fit t->format?  Those that are not finite do not. */
static bool scales_fit(const struct module *m, const struct tensor *t, uint8_t *data, int64_t first, int64_t last)
{
    bool (*fits)(float scale, float min) = kind_of(t->format)->fits;
    bool ok = true;
    (void)data;
    for (int64_t n = first; n < last && ok; n++)
        for (int64_t g = 0; g < m->groups && ok; g++) {
            float scale, min;
            m->scales(m, n, g, &scale, &min);
            ok = fits(scale, min);
        }
    return ok;
}

static enum format_id smallest_format(struct module *m, struct tensor *t)
{
    struct module quiet = *m;
    struct error ignored;
    quiet.err = &ignored;
    for (const struct block_kind *k = block_kinds; m->bits <= 4 && !m->slot->any_scale && k->fits; k++) {
        t->format = k->format;
        if (unpack_all(&quiet, t, NULL, scales_fit))
            return k->format;
    }
    return m->bits <= 4 ? FORMAT_I4M : FORMAT_I8M;
}

static void put_codes(uint8_t *out, bool wide, const uint8_t *codes)
{
    if (wide)
        memcpy(out, codes, 32);
    for (int j = 0; !wide && j < 16; j++)
        out[j] = (uint8_t)(codes[j] | codes[j + 16] << 4);
}

/* Column block b of rows first .. last - 1. */
static bool unpack_columns(const struct module *m, const struct tensor *t, uint8_t *data, int64_t b, int64_t first, int64_t last)
{
    const struct block_kind *kind = kind_of(t->format);
    int32_t k[32];
    int64_t row_bytes = format_row_bytes(t->format, m->cols);
    for (int i = 0; i < 32; i++)
        k[i] = t->col_perm ? t->col_perm[32 * b + i] : (int32_t)(32 * b + i);
    int64_t g = block_group(m, k);
    if (g < 0 || g >= m->groups)
        return fail(m->err, STATUS_UNSUPPORTED, "%s: %s: group sizes that are no multiple of 32 columns are not supported", m->f->metadata_path, m->base);
    for (int64_t n = first; n < last; n++) {
        uint8_t codes[32];
        float scale, min;
        m->codes(m, n, k, codes);
        m->scales(m, n, g, &scale, &min);
        if (!isfinite(scale) || !isfinite(min))
            return fail(m->err, STATUS_FORMAT, "%s: %s, row %lld, group %lld: the scale is not a finite number", m->f->metadata_path, m->base,
                        (long long)n, (long long)g);
        uint8_t *out = data + n * row_bytes + b * formats[t->format].block_bytes;
        kind->put(out, scale, min);
        put_codes(out + kind->head, m->bits > 4, codes);
    }
    return true;
}

/* Some rows at a time: layouts that pack along rows and along columns both find their memory in the cache. */
static bool unpack_tiles(const struct module *m, const struct tensor *t, uint8_t *data, int64_t first, int64_t last)
{
    bool ok = true;
    for (int64_t n = first; ok && n < last; n += TILE_ROWS)
        for (int64_t b = 0; ok && b < m->cols / 32; b++)
            ok = unpack_columns(m, t, data, b, n, n + TILE_ROWS < last ? n + TILE_ROWS : last);
    return ok;
}

bool unpack_matrix(struct module *m, struct tensor *t)
{
    if (m->cols % 32 || (!m->g_idx && (m->group < 1 || m->group % 32)))
        return fail(m->err, STATUS_UNSUPPORTED, "%s: %s: rows of %lld in groups of %lld; both must be multiples of 32", m->f->metadata_path, m->base,
                    (long long)m->cols, (long long)m->group);
    if (!column_order(m, &t->col_perm))
        return false;
    m->run = !t->col_perm;
    t->format = smallest_format(m, t);
    return unpack_tensor(m, t, unpack_tiles);
}

static bool f8_block(const struct module *m, int64_t n, int64_t k, uint8_t *out)
{
    const uint8_t *codes = m->weight->data + n * m->cols + k;
    float scale, min;
    m->scales(m, n, k / m->group, &scale, &min);
    for (int j = 0; j < 32; j++)
        if ((codes[j] & 0x7f) == 0x7f)
            return fail(m->err, STATUS_FORMAT, "%s: %s[%lld][%lld] is not a number", m->weight->file, m->weight->name, (long long)n, (long long)(k + j));
    if (!isfinite(scale))
        return fail(m->err, STATUS_FORMAT, "%s: %s, row %lld, column %lld: the scale is not a finite number", m->f->metadata_path, m->base, (long long)n,
                    (long long)k);
    memcpy(out, &scale, sizeof scale);
    memcpy(out + 4, codes, 32);
    return true;
}

static bool f8_rows(const struct module *m, const struct tensor *t, uint8_t *data, int64_t first, int64_t last)
{
    uint8_t *out = data + first * format_row_bytes(t->format, m->cols);
    for (int64_t i = first * m->cols; i < last * m->cols; i += 32, out += sizeof(struct block_f8))
        if (!f8_block(m, i / m->cols, i % m->cols, out))
            return false;
    return true;
}

bool unpack_f8(struct module *m, struct tensor *t)
{
    t->format = FORMAT_F8;
    if (m->cols % 32 || m->group % 32)
        return fail(m->err, STATUS_UNSUPPORTED, "%s: %s: rows of %lld with scales for %lld columns; both must be multiples of 32", m->f->metadata_path,
                    m->base, (long long)m->cols, (long long)m->group);
    return unpack_tensor(m, t, f8_rows);
}

/* ---- which layout ---- */

/* A file of its own beside config.json, as the tools of these methods write it; NULL: none, or an error (*ok false). */
static const cJSON *section_file(struct packed *p, const char *dir, struct error *err, bool *ok)
{
    static const struct { const char *file, *method, *within; } files[] = {
        { "quantize_config.json", "gptq", NULL }, { "quant_config.json", "awq", NULL }, { "hf_quant_config.json", "modelopt", "quantization" },
    };
    cJSON *q = NULL;
    for (size_t i = 0; !q && *ok && i < ARRAY_LEN(files); i++) {
        struct text path = { 0 };
        path_join(&path, dir, files[i].file);
        if (text_ok(&path, NULL) && file_exists(text_str(&path))) {
            p->owned = json_parse_file(text_str(&path), 1 << 24, err);
            *ok = p->owned != NULL;
            q = *ok && files[i].within ? cJSON_GetObjectItemCaseSensitive(p->owned, files[i].within) : p->owned;
            if (q && !json_get(q, "quant_method"))
                cJSON_AddStringToObject(q, "quant_method", files[i].method);
        }
        text_free(&path);
    }
    return q;
}

/* The section that describes the quantization, wherever the writer put it; NULL: none. */
static const cJSON *find_section(struct packed *p, const struct model_files *f, const char *dir, struct error *err, bool *ok)
{
    const cJSON *text = json_get(f->config, "text_config"), *q = json_get(f->config, "quantization_config");
    *ok = true;
    if (!q && text)
        q = json_get(text, "quantization_config");
    if (!q)
        q = json_get(f->config, "quantization");
    return q ? q : section_file(p, dir, err, ok);
}

static const char *string_in(const cJSON *o, const char *key, const char *absent)
{
    const cJSON *v = o ? json_get(o, key) : NULL;
    return cJSON_IsString(v) ? v->valuestring : absent;
}

static const char *readable(char names[160]);         /* names of the methods that are read */

static bool refuse(const struct model_files *f, const char *what, const char *found, const char *why, struct error *err)
{
    char names[160];
    return fail(err, STATUS_UNSUPPORTED, "%s: %s \"%s\" is not read: %s (checkpoints that are: %s)", f->metadata_path, what, found, why, readable(names));
}

static bool check_gptq(struct packed *p, struct model_files *f, const cJSON *q, struct error *err)
{
    const char *format = string_in(q, "checkpoint_format", "gptq");
    p->rules.zeros_less_one = strcmp(format, "gptq_v2") != 0;
    if (strcmp(format, "gptq") && strcmp(format, "gptq_v2"))
        return refuse(f, "GPTQ checkpoint_format", format, "only gptq and gptq_v2 are read", err);
    if (strcmp(string_in(q, "pack_dtype", "int32"), "int32"))
        return refuse(f, "GPTQ pack_dtype", string_in(q, "pack_dtype", ""), "only int32 is read", err);
    return true;
}

static bool check_awq(struct packed *p, struct model_files *f, const cJSON *q, struct error *err)
{
    const char *version = string_in(q, "version", "gemm");
    (void)p;
    if (strcmp(version, "gemm") && strcmp(version, "GEMM"))
        return refuse(f, "AWQ version", version, "only the gemm layout is read; gemv, gemv_fast, llm-awq and marlin interleave differently", err);
    return true;
}

static bool check_autoround(struct packed *p, struct model_files *f, const cJSON *q, struct error *err)
{
    const char *packing = string_in(q, "packing_format", "auto_round");
    p->load = strstr(packing, "awq") ? load_awq : load_gptq;
    p->rules.method = strstr(packing, "awq") ? "awq" : "gptq";
    p->rules.zeros_less_one = true;
    if (strcmp(packing, "auto_round:auto_gptq") && strcmp(packing, "auto_round:auto_awq"))
        return refuse(f, "AutoRound packing_format", packing, "only auto_round:auto_gptq and auto_round:auto_awq are read", err);
    return true;
}

/* [rows, columns] that share a scale. */
static bool read_block(struct packed *p, const struct model_files *f, const cJSON *block, struct error *err)
{
    for (int i = 0; i < 2 && cJSON_IsArray(block); i++) {
        const cJSON *n = cJSON_GetArrayItem(block, i);
        if (!cJSON_IsNumber(n) || !(n->valuedouble >= 1 && n->valuedouble <= 1 << 24))
            return fail(err, STATUS_FORMAT, "%s: the block of a scale is not two numbers of rows and columns", f->metadata_path);
        p->rules.block[i] = (int64_t)n->valuedouble;
    }
    return true;
}

static bool check_fp8(struct packed *p, struct model_files *f, const cJSON *q, struct error *err)
{
    f->rounds_activations = true;
    return read_block(p, f, json_get(q, "weight_block_size"), err);
}

static bool in_list(const char *name, const char *const *list)
{
    while (*list && strcmp(*list, name))
        list++;
    return *list != NULL;
}

static bool check_modelopt(struct packed *p, struct model_files *f, const cJSON *q, struct error *err)
{
    static const char *const known[] = { "FP8", "NVFP4", NULL };
    const char *algorithm = string_in(q, "quant_algo", "(not named)");
    (void)p;
    f->rounds_activations = true;
    return in_list(algorithm, known) || refuse(f, "modelopt quant_algo", algorithm, "only FP8 and NVFP4 are", err);
}

static bool check_compressed(struct packed *p, struct model_files *f, const cJSON *q, struct error *err)
{
    static const char *const compressed_formats[] = { "pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "nvfp4-pack-quantized",
                                                      "mxfp4-pack-quantized", NULL };
    const cJSON *groups = json_get(q, "config_groups"), *g;
    cJSON_ArrayForEach(g, groups) {
        const char *format = string_in(g, "format", string_in(q, "format", "?"));
        const cJSON *weights = json_get(g, "weights"), *bits = weights ? json_get(weights, "num_bits") : NULL;
        if (!in_list(format, compressed_formats))
            return refuse(f, "compressed-tensors format", format, "an unknown one, or one without a kernel (mxfp6, sparse)", err);
        if (weights && strcmp(string_in(weights, "type", "int"), "int") && bits && bits->valuedouble != 8 && bits->valuedouble != 4)
            return refuse(f, "compressed-tensors weights type", string_in(weights, "type", "?"), "only floats of 4 and 8 bits are", err);
        if (!read_block(p, f, weights ? json_get(weights, "block_structure") : NULL, err))
            return false;
        f->rounds_activations |= cJSON_IsObject(json_get(g, "input_activations")) || cJSON_IsObject(json_get(g, "output_activations"));
    }
    if (json_get(q, "kv_cache_scheme"))
        return refuse(f, "compressed-tensors", "kv_cache_scheme", "a quantized K/V cache is not supported", err);
    if (cJSON_GetArraySize(json_get(q, "transform_config")) > 0)
        return refuse(f, "compressed-tensors", "transform_config", "rotations are not supported", err);
    return true;
}

static bool check_bitsandbytes(struct packed *p, struct model_files *f, const cJSON *q, struct error *err)
{
    (void)p;
    if (cJSON_IsTrue(json_get(q, "load_in_8bit")))
        return refuse(f, "bitsandbytes", "load_in_8bit", "LLM.int8 multiplies outlier columns apart; only 4-bit (nf4, fp4) is read", err);
    return true;
}

static bool mlx_mode_read(const char *mode)
{
    return !strcmp(mode, "affine") || !strcmp(mode, "mxfp4") || !strcmp(mode, "nvfp4") || !strcmp(mode, "mxfp8");
}

static bool check_mlx(struct packed *p, struct model_files *f, const cJSON *q, struct error *err)
{
    static const char why[] = "only affine, mxfp4, nvfp4 and mxfp8 are";
    const cJSON *e;
    const char *mode = string_in(q, "mode", "affine");
    (void)p;
    if (!mlx_mode_read(mode))
        return refuse(f, "MLX mode", mode, why, err);
    cJSON_ArrayForEach(e, q)
        if (cJSON_IsObject(e) && !mlx_mode_read(string_in(e, "mode", "affine")))
            return refuse(f, "MLX mode", string_in(e, "mode", ""), why, err);
    return true;
}

/* To add a layout: its loader, its check of the config (or NULL), its row.  One that is not read has a reason instead. */
static const struct method {
    const char *name;           /* quant_method */
    bool (*load)(struct module *m, struct tensor *t, bool *found);
    bool (*check)(struct packed *p, struct model_files *f, const cJSON *q, struct error *err);
    const char *refusal;
} methods[] = {
    { "gptq", load_gptq, check_gptq, NULL },
    { "awq", load_awq, check_awq, NULL },
    { "auto-round", load_gptq, check_autoround, NULL },
    { "intel/auto-round", load_gptq, check_autoround, NULL },
    { "bitsandbytes", load_bitsandbytes, check_bitsandbytes, NULL },
    { "compressed-tensors", load_compressed, check_compressed, NULL },
    { "torchao", load_torchao, NULL, NULL },
    { "mlx", load_mlx, check_mlx, NULL },
    { "metal", load_mlx, NULL, NULL },
    { "hqq", load_hqq, NULL, NULL },
    { "gemma", load_gemma, NULL, NULL },
    { "fp8", load_bytes, check_fp8, NULL },
    { "fbgemm_fp8", load_bytes, check_fp8, NULL },
    { "modelopt", load_modelopt, check_modelopt, NULL },
    { "exl2", NULL, NULL, "ExLlamaV2 mixes widths within a matrix and has no written specification" },
    { "exl3", NULL, NULL, "ExLlamaV3 codes are trellis states, decoded by a procedure that has no written specification" },
    { "aqlm", NULL, NULL, "additive codebooks: every weight is a sum of learned 8- or 16-bit entries, for which the engine has no kernel" },
    { "vptq", NULL, NULL, "vector codebooks, for which the engine has no kernel" },
    { "quip", NULL, NULL, "codes are lattice points behind a Hadamard rotation" },
    { "higgs", NULL, NULL, "codes are lattice points behind a Hadamard rotation" },
    { "fp_quant", NULL, NULL, "4-bit floats behind a Hadamard rotation" },
    { "spqr", NULL, NULL, "its outliers are kept in a sparse matrix" },
    { "marlin", NULL, NULL, "a GPU's permutation of GPTQ; use the GPTQ files it was made from" },
    { "eetq", NULL, NULL, "8-bit codes in a GPU's permutation" },
    { "quanto", NULL, NULL, "transformers quantizes with it while loading and writes no such folders; optimum-quanto's own have no written specification" },
    { "mxfp8", NULL, NULL, "8-bit floats with scales that are powers of two, in a layout of transformers; MXFP8 is read from MLX folders" },
    { "mxfp4", NULL, NULL, "stacked experts in a layout of gpt-oss alone; MXFP4 is read from GGUF files and MLX folders" },
    { "nvfp4", NULL, NULL, "transformers makes it while loading and writes no such folders; compressed-tensors' and modelopt's NVFP4 are read" },
    { "fouroversix", NULL, NULL, "NVFP4 whose blocks choose between two largest values, in a layout of its own" },
    { "quark", NULL, NULL, "one name for many layouts, most with rounded activations" },
    { "sinq", NULL, NULL, "a scale for each column beside those of the groups" },
    { "bitnet", NULL, NULL, "its activations are quantized as part of the model" },
    { "gguf", NULL, NULL, "open the .gguf file itself" },
};

static const char *readable(char names[160])
{
    size_t at = 0;
    names[0] = 0;
    for (size_t i = 0; i < ARRAY_LEN(methods); i++)
        if (methods[i].load && at < 160)
            at += (size_t)snprintf(names + at, 160 - at, "%s%s", at ? ", " : "", methods[i].name);
    return names;
}

static bool pick_method(struct packed *p, struct model_files *f, const cJSON *q, struct error *err)
{
    const char *name = string_in(q, "quant_method", json_get(q, "group_size") && json_get(q, "bits") ? "mlx" : "(not named)");
    const struct method *found = NULL;
    for (size_t i = 0; i < ARRAY_LEN(methods); i++)
        if (!strcmp(methods[i].name, name))
            found = &methods[i];
    if (!found || !found->load)
        return refuse(f, "quant_method", name, found ? found->refusal : "a layout that this program does not know", err);
    p->rules.method = found->name;
    p->load = found->load;
    return !found->check || found->check(p, f, q, err);
}

bool packed_open(struct packed **out, struct model_files *f, const char *dir, struct error *err)
{
    bool ok;
    struct packed *p = mem_new(1, sizeof *p, err);
    *out = p;
    if (!p)
        return false;
    const cJSON *q = find_section(p, f, dir, err, &ok);
    ok = ok && (!q || pick_method(p, f, q, err));
    f->packed_method = ok ? p->rules.method : NULL;
    return ok && (!q || pool_open(&p->pool, 0, err));
}

bool packed_load(struct packed *p, struct model_files *f, const char *base, const struct slot *s, struct tensor *t, bool *found, struct error *err)
{
    struct module m = { .rules = &p->rules, .f = f, .base = base, .slot = s, .pool = p->pool, .err = err, .rows = s->rows, .cols = s->cols };
    *found = false;
    if (!p->load || s->mats != 1 || s->rows == 1)
        return true;
    if (!p->load(&m, t, found))
        return fail_in(err, "%s layout", p->rules.method);
    return true;
}

void packed_close(struct packed *p)
{
    if (!p)
        return;
    cJSON_Delete(p->owned);
    pool_close(p->pool);
    free(p);
}
