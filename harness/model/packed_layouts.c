/* packed_layouts.c - where each checkpoint layout keeps codes, scales and zero points (quantization.md 6). */
#include "packed.h"

#include <stdlib.h>

/* Width of a code, from how many 32-bit words hold how many of them. */
static int bits_from(int64_t words, int64_t codes)
{
    return codes > 0 && words * 32 % codes == 0 && words * 32 / codes <= 16 ? (int)(words * 32 / codes) : 0;
}

static bool is_words(const struct raw_tensor *r)
{
    return r->n_dims == 2 && (r->type == RAW_I32 || r->type == RAW_U32);
}

static bool bad_words(struct module *m, const struct raw_tensor *r)
{
    return fail(m->err, STATUS_FORMAT, "%s: %s is %s in %d dimensions, expected a matrix of 32-bit words", r->file, r->name, r->type_name, r->n_dims);
}

static unsigned field(uint32_t word, int bits, int64_t i)
{
    return word >> (unsigned)(bits * (int)i) & ((1u << bits) - 1);
}

static bool odd_width(struct module *m)
{
    return fail(m->err, STATUS_UNSUPPORTED, "%s: %s: %d-bit weights are not supported (2, 4 and 8 are)", m->f->metadata_path, m->base, m->bits);
}

/* ---- GPTQ: codes packed along the inputs, zero points along the outputs ---- */

static void gptq_codes(const struct module *m, int64_t n, const int32_t *k, uint8_t *out)
{
    int pack = 32 / m->bits;
    for (int i = 0; i < 32; i++)
        out[i] = (uint8_t)field(raw_word(m->weight, k[i] / pack * m->rows + n), m->bits, k[i] % pack);
}

static void gptq_scales(const struct module *m, int64_t n, int64_t g, float *scale, float *min)
{
    int pack = 32 / m->bits;
    unsigned z = field(raw_word(m->zero, g * (m->rows / pack) + n / pack), m->bits, n % pack);
    if (m->rules->zeros_less_one)
        z = (z + 1) & ((1u << m->bits) - 1);
    *scale = raw_float(m->scale, g * m->rows + n);
    *min = -*scale * (float)z;
}

/* Number of groups and their width from the rows of scales; a width of -1 in the config means one group. */
static bool groups_along_columns(struct module *m, const char *scales)
{
    const struct raw_tensor *s = module_part(m, scales);
    if (!s || s->n_dims != 2)
        return fail(m->err, STATUS_FORMAT, "%s: %s has no %s matrix", m->f->metadata_path, m->base, scales);
    m->groups = s->dims[0];
    m->group = (m->cols + m->groups - 1) / m->groups;
    return module_float(m, scales, m->groups, m->rows, &m->scale);
}

bool load_gptq(struct module *m, struct tensor *t, bool *found)
{
    struct raw_tensor *w = module_part(m, "qweight");
    if (!w)
        return true;
    *found = true;
    if (!is_words(w))
        return bad_words(m, w);
    m->bits = bits_from(w->dims[0], m->cols);
    if (m->bits != 2 && m->bits != 4 && m->bits != 8)
        return odd_width(m);
    int pack = 32 / m->bits;
    if (!module_need(m, "qweight", m->cols / pack, m->rows, &m->weight) || !groups_along_columns(m, "scales") ||
        !module_need(m, "qzeros", m->groups, m->rows / pack, &m->zero))
        return false;
    if (!is_words(m->zero))
        return bad_words(m, m->zero);
    if (module_part(m, "g_idx") && !module_need(m, "g_idx", m->cols, 0, &m->g_idx))
        return false;
    if (m->g_idx && m->g_idx->type != RAW_I32)
        return fail(m->err, STATUS_FORMAT, "%s: %s has dtype %s, expected I32", m->g_idx->file, m->g_idx->name, m->g_idx->type_name);
    m->codes = gptq_codes;
    m->scales = gptq_scales;
    return unpack_matrix(m, t);
}

/* ---- AWQ GEMM: eight outputs a word, in the order 0 2 4 6 1 3 5 7 ---- */

static const uint8_t awq_nibble[8] = { 0, 4, 1, 5, 2, 6, 3, 7 };

static void awq_codes(const struct module *m, int64_t n, const int32_t *k, uint8_t *out)
{
    for (int i = 0; i < 32; i++)
        out[i] = (uint8_t)field(raw_word(m->weight, k[i] * (m->rows / 8) + n / 8), 4, awq_nibble[n % 8]);
}

static void awq_scales(const struct module *m, int64_t n, int64_t g, float *scale, float *min)
{
    unsigned z = m->zero ? field(raw_word(m->zero, g * (m->rows / 8) + n / 8), 4, awq_nibble[n % 8]) : 8;
    *scale = raw_float(m->scale, g * m->rows + n);
    *min = -*scale * (float)z;
}

bool load_awq(struct module *m, struct tensor *t, bool *found)
{
    struct raw_tensor *w = module_part(m, "qweight");
    if (!w)
        return true;
    *found = true;
    if (!is_words(w))
        return bad_words(m, w);
    m->bits = bits_from(w->dims[1], m->rows);
    if (m->bits != 4)
        return fail(m->err, STATUS_UNSUPPORTED, "%s: %s: %d-bit weights; the AWQ layout is known with 4", m->f->metadata_path, m->base, m->bits);
    if (!module_need(m, "qweight", m->cols, m->rows / 8, &m->weight) || !groups_along_columns(m, "scales"))
        return false;
    if (module_part(m, "qzeros") && !module_need(m, "qzeros", m->groups, m->rows / 8, &m->zero))
        return false;
    if (m->zero && !is_words(m->zero))
        return bad_words(m, m->zero);
    m->codes = awq_codes;
    m->scales = awq_scales;
    return unpack_matrix(m, t);
}

/* ---- compressed-tensors pack-quantized: rows of words; zero points packed down the rows ---- */

static void row_codes(const struct module *m, int64_t n, const int32_t *k, uint8_t *out)
{
    int pack = 32 / m->bits;
    for (int i = 0; i < 32; i++)
        out[i] = (uint8_t)field(raw_word(m->weight, n * m->weight->dims[1] + k[i] / pack), m->bits, k[i] % pack);
}

static void compressed_scales(const struct module *m, int64_t n, int64_t g, float *scale, float *min)
{
    int pack = 32 / m->bits;
    unsigned z = m->zero ? field(raw_word(m->zero, n / pack * m->groups + g), m->bits, n % pack) : 1u << (m->bits - 1);
    *scale = raw_float(m->scale, n * m->groups + g);
    *min = -*scale * (float)z;
}

static bool compressed_groups(struct module *m)
{
    const struct raw_tensor *s = module_part(m, "weight_scale");
    if (!s || s->n_dims != 2)
        return fail(m->err, STATUS_FORMAT, "%s: %s has no weight_scale matrix", m->f->metadata_path, m->base);
    m->groups = s->dims[1];
    m->group = (m->cols + m->groups - 1) / m->groups;
    return module_float(m, "weight_scale", m->rows, m->groups, &m->scale);
}

/* A g_idx of -1 throughout says that there is no act-order. */
static bool compressed_order(struct module *m)
{
    int32_t first;
    if (!module_part(m, "weight_g_idx"))
        return true;
    if (!module_need(m, "weight_g_idx", m->cols, 0, &m->g_idx))
        return false;
    if (m->g_idx->type != RAW_I32)
        return fail(m->err, STATUS_FORMAT, "%s: %s has dtype %s, expected I32", m->g_idx->file, m->g_idx->name, m->g_idx->type_name);
    memcpy(&first, m->g_idx->data, sizeof first);
    if (first == -1)
        m->g_idx = NULL;
    return true;
}

bool load_compressed(struct module *m, struct tensor *t, bool *found)
{
    struct raw_tensor *w = module_part(m, "weight_packed"), *shape = module_part(m, "weight_shape");
    if (!w)
        return true;
    *found = true;
    if (!is_words(w))
        return bad_words(m, w);
    m->bits = bits_from(w->dims[1], m->cols);
    if (m->bits != 4 && m->bits != 8)
        return fail(m->err, STATUS_UNSUPPORTED, "%s: %s: %lld words hold a row of %lld; only 4 and 8 bits are read", m->f->metadata_path, m->base,
                    (long long)w->dims[1], (long long)m->cols);
    int pack = 32 / m->bits;
    if (shape)
        shape->used = true;
    if (!module_need(m, "weight_packed", m->rows, m->cols / pack, &m->weight) || !compressed_groups(m) || !compressed_order(m))
        return false;
    if (module_part(m, "weight_zero_point") && !module_need(m, "weight_zero_point", (m->rows + pack - 1) / pack, m->groups, &m->zero))
        return false;
    if (m->zero && !is_words(m->zero))
        return bad_words(m, m->zero);
    m->codes = row_codes;
    m->scales = compressed_scales;
    return unpack_matrix(m, t);
}

/* ---- MLX affine: rows of words, a scale and a bias for each group ---- */

static void mlx_scales(const struct module *m, int64_t n, int64_t g, float *scale, float *min)
{
    *scale = raw_float(m->scale, n * m->groups + g);
    *min = raw_float(m->zero, n * m->groups + g);
}

bool load_mlx(struct module *m, struct tensor *t, bool *found)
{
    struct raw_tensor *w = module_part(m, "weight"), *s = module_part(m, "scales");
    if (!w || !s)
        return true;
    *found = true;
    if (!is_words(w) || s->n_dims != 2)
        return bad_words(m, w);
    m->bits = bits_from(w->dims[1], m->cols);
    m->groups = s->dims[1];
    m->group = (m->cols + m->groups - 1) / m->groups;
    if (m->bits != 2 && m->bits != 4 && m->bits != 8)
        return odd_width(m);
    if (!module_need(m, "weight", m->rows, m->cols * m->bits / 32, &m->weight) || !module_float(m, "scales", m->rows, m->groups, &m->scale) ||
        !module_float(m, "biases", m->rows, m->groups, &m->zero))
        return false;
    m->codes = row_codes;
    m->scales = mlx_scales;
    return unpack_matrix(m, t);
}

/* ---- torchao Int4Tensor: signed nibbles, even input first; scales and float zeros stand transposed ---- */

static void torchao_codes(const struct module *m, int64_t n, const int32_t *k, uint8_t *out)
{
    for (int i = 0; i < 32; i++) {
        uint8_t byte = m->weight->data[n * (m->cols / 2) + k[i] / 2];
        out[i] = (uint8_t)((byte >> 4 * (k[i] & 1) & 15) ^ 8);
    }
}

static void torchao_scales(const struct module *m, int64_t n, int64_t g, float *scale, float *min)
{
    *scale = raw_float(m->scale, g * m->rows + n);
    *min = raw_float(m->zero, g * m->rows + n) - 8 * *scale;
}

bool load_torchao(struct module *m, struct tensor *t, bool *found)
{
    struct raw_tensor *q = module_part(m, "_weight_qdata");
    char key[256];
    if (!q)
        return true;
    *found = true;
    snprintf(key, sizeof key, "safetensors.%s.weight", m->base);
    const char *type = kv_string(m->f, key);
    if ((type && !strstr(type, "\"Int4Tensor\"")) || (q->type != RAW_I8 && q->type != RAW_U8) || module_part(m, "_weight_act_pre_scale"))
        return fail(m->err, STATUS_UNSUPPORTED, "%s: %s: only torchao's plain Int4Tensor without pre-scaling is read", m->f->metadata_path, m->base);
    m->bits = 4;
    if (!module_need(m, "_weight_qdata", m->rows, m->cols / 2, &m->weight) || !groups_along_columns(m, "_weight_scale") ||
        !module_float(m, "_weight_zero_point", m->groups, m->rows, &m->zero))
        return false;
    m->codes = torchao_codes;
    m->scales = torchao_scales;
    return unpack_matrix(m, t);
}

/* ---- bitsandbytes: the flat matrix in blocks of a codebook, high nibble first ---- */

struct bnb {
    const struct raw_tensor *absmax, *nested, *nested_map;
    int64_t block, nested_block;
    float offset;
};

static float bnb_absmax(const struct bnb *b, int64_t i)
{
    if (!b->nested)
        return raw_float(b->absmax, i);
    return raw_float(b->nested_map, b->absmax->data[i]) * raw_float(b->nested, i / b->nested_block) + b->offset;
}

/* The matrix's state is a JSON text in a U8 tensor. */
static cJSON *bnb_state(struct module *m, const struct raw_tensor **raw, bool *fp4)
{
    struct raw_tensor *s = module_part(m, "weight.quant_state.bitsandbytes__nf4");
    *fp4 = !s;
    if (!s)
        s = module_part(m, "weight.quant_state.bitsandbytes__fp4");
    *raw = s;
    if (!s)
        return NULL;
    s->used = true;
    return json_parse((const char *)s->data, (size_t)s->bytes, s->name, m->err);
}

static bool bnb_parts(struct module *m, const cJSON *state, struct bnb *b)
{
    int64_t blocks, nested_blocks;
    struct raw_tensor *map = module_part(m, "weight.quant_map");
    if (map)
        map->used = true;
    if (!json_int(state, "blocksize", &b->block, m->base, m->err))
        return false;
    if (b->block < 32 || b->block % 32 || m->cols % 32)
        return fail(m->err, STATUS_UNSUPPORTED, "%s: %s: blocks of %lld and rows of %lld; both must be multiples of 32", m->f->metadata_path, m->base,
                    (long long)b->block, (long long)m->cols);
    blocks = (m->rows * m->cols + b->block - 1) / b->block;
    if (!json_get(state, "nested_blocksize"))
        return module_float(m, "weight.absmax", blocks, 0, &b->absmax);
    double offset;
    if (!json_int(state, "nested_blocksize", &b->nested_block, m->base, m->err) || !json_num(state, "nested_offset", &offset, m->base, m->err))
        return false;
    if (b->nested_block < 1)
        return fail(m->err, STATUS_FORMAT, "%s: nested_blocksize is %lld", m->base, (long long)b->nested_block);
    b->offset = (float)offset;
    nested_blocks = (blocks + b->nested_block - 1) / b->nested_block;
    if (!module_need(m, "weight.absmax", blocks, 0, &b->absmax) || !module_float(m, "weight.nested_absmax", nested_blocks, 0, &b->nested) ||
        !module_float(m, "weight.nested_quant_map", 256, 0, &b->nested_map))
        return false;
    return b->absmax->type == RAW_U8 || fail(m->err, STATUS_FORMAT, "%s: nested absmax has dtype %s, expected U8", m->base, b->absmax->type_name);
}

static bool bnb_unpack(struct module *m, const struct bnb *b, const uint8_t *packed, struct tensor *t)
{
    t->bytes = (uint64_t)(m->rows * format_row_bytes(t->format, m->cols));
    struct block_nf4 *out = files_own(m->f, t->bytes, m->err);
    t->data = out;
    for (int64_t i = 0; out && i < m->rows * m->cols; i += 32, out++) {
        uint8_t codes[32];
        for (int j = 0; j < 32; j++)
            codes[j] = packed[(i + j) / 2] >> (j % 2 ? 0 : 4) & 15;
        for (int j = 0; j < 16; j++)
            out->qs[j] = (uint8_t)(codes[j] | codes[j + 16] << 4);
        out->absmax = bnb_absmax(b, i / b->block);
        if (!(out->absmax * 0 == 0))
            return fail(m->err, STATUS_FORMAT, "%s: %s: absmax %lld is not a finite number", m->f->metadata_path, m->base, (long long)(i / b->block));
    }
    return t->data != NULL;
}

bool load_bitsandbytes(struct module *m, struct tensor *t, bool *found)
{
    const struct raw_tensor *raw;
    struct raw_tensor *w = module_part(m, "weight");
    struct bnb b = { 0 };
    bool fp4;
    cJSON *state = bnb_state(m, &raw, &fp4);
    if (!raw)
        return true;
    *found = true;
    t->format = fp4 ? FORMAT_FP4 : FORMAT_NF4;
    bool ok = state && bnb_parts(m, state, &b);
    if (ok && (!w || w->bytes != (uint64_t)(m->rows * m->cols / 2)))
        ok = fail(m->err, STATUS_FORMAT, "%s: %s.weight has %llu bytes, expected %lld", m->f->metadata_path, m->base, w ? (unsigned long long)w->bytes : 0,
                  (long long)(m->rows * m->cols / 2));
    if (w)
        w->used = true;
    ok = ok && bnb_unpack(m, &b, w->data, t);
    cJSON_Delete(state);
    return ok;
}
