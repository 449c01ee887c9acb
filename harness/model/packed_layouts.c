/* packed_layouts.c - where each checkpoint layout keeps codes, scales and zero points (quantization.md 6). */
#include "packed.h"

#include <stdlib.h>

static bool is_words(const struct raw_tensor *r)
{
    return r->n_dims == 2 && (r->type == RAW_I32 || r->type == RAW_U32);
}

static bool bad_words(struct module *m, const struct raw_tensor *r)
{
    return bad_dtype(m, r, "a matrix of 32-bit words");
}

static int64_t words_of(const struct module *m, int64_t codes)
{
    return (codes * m->bits + 31) / 32;
}

/* Width of a code, from how many 32-bit words hold how many of them without a gap; bit b of widths: width b is read. */
static bool code_width(struct module *m, int64_t words, int64_t codes, unsigned widths)
{
    for (m->bits = 1; m->bits <= 8; m->bits++)
        if (widths >> m->bits & 1 && words_of(m, codes) == words && words * 32 / codes == m->bits)
            return true;
    return fail(m->err, STATUS_UNSUPPORTED, "%s: %s: %lld words hold %lld codes, %.3g bits each, which is not a width that is read in the %s layout",
                m->f->metadata_path, m->base, (long long)words, (long long)codes, 32.0 * (double)words / (double)codes, m->rules->method);
}

/* Codes of columns k[] from a stream that begins with word first. */
static void stream_codes(const struct module *m, int64_t first, int64_t stride, const int32_t *k, uint8_t *out)
{
    const struct raw_tensor *r = m->weight;
    uint64_t bits = 0;
    int64_t next = first + (int64_t)k[0] * m->bits / 32 * stride;
    int have = 0;
    if (m->run && m->bits == 4) {       /* nearly all there are */
        for (int i = 0; i < 32; i += 8, next += stride)
            for (int j = 0; j < 8; j++)
                out[i + j] = raw_word(r, next) >> 4 * j & 15;
        return;
    }
    for (int i = 0; i < 32 && !m->run; i++)
        out[i] = (uint8_t)raw_bits(r, first, stride, (int64_t)k[i] * m->bits, m->bits);
    for (int i = 0; i < 32 && m->run; i++, bits >>= m->bits, have -= m->bits) {
        if (have < m->bits) {
            bits |= (uint64_t)raw_word(r, next) << have;
            have += 32;
            next += stride;
        }
        out[i] = (uint8_t)(bits & ((1u << m->bits) - 1));
    }
}

/* ---- GPTQ: codes packed along the inputs, zero points along the outputs ---- */

static void gptq_codes(const struct module *m, int64_t n, const int32_t *k, uint8_t *out)
{
    stream_codes(m, n, m->rows, k, out);
}

static void gptq_scales(const struct module *m, int64_t n, int64_t g, float *scale, float *min)
{
    unsigned z = raw_bits(m->zero, g * words_of(m, m->rows), 1, n * m->bits, m->bits);
    if (m->rules->zeros_less_one)
        z = (z + 1) & ((1u << m->bits) - 1);
    *scale = raw_float(m->scale, g * m->rows + n);
    *min = -*scale * (float)z;
}

bool load_gptq(struct module *m, struct tensor *t, bool *found)
{
    struct raw_tensor *w = module_part(m, "qweight");
    if (!w)
        return true;
    *found = true;
    if (!is_words(w))
        return bad_words(m, w);
    /* 5, 6 and 7 bits stand in planes (gptq_p), not in one stream. */
    if (!code_width(m, w->dims[0], m->cols, 1u << 2 | 1u << 3 | 1u << 4 | 1u << 8) ||
        !module_need(m, "qweight", words_of(m, m->cols), m->rows, &m->weight) || !groups_along_columns(m, "scales") ||
        !module_need(m, "qzeros", m->groups, words_of(m, m->rows), &m->zero))
        return false;
    if (!is_words(m->zero))
        return bad_words(m, m->zero);
    if (module_part(m, "g_idx") && !module_need(m, "g_idx", m->cols, 0, &m->g_idx))
        return false;
    if (m->g_idx && m->g_idx->type != RAW_I32)
        return bad_dtype(m, m->g_idx, "I32");
    m->codes = gptq_codes;
    m->scales = gptq_scales;
    return unpack_matrix(m, t);
}

/* ---- AWQ GEMM: eight outputs a word, in the order 0 2 4 6 1 3 5 7 ---- */

static const uint8_t awq_nibble[8] = { 0, 4, 1, 5, 2, 6, 3, 7 };

static void awq_codes(const struct module *m, int64_t n, const int32_t *k, uint8_t *out)
{
    for (int i = 0; i < 32; i++)
        out[i] = (uint8_t)raw_bits(m->weight, k[i] * (m->rows / 8) + n / 8, 1, 4 * awq_nibble[n % 8], 4);
}

static void awq_scales(const struct module *m, int64_t n, int64_t g, float *scale, float *min)
{
    unsigned z = m->zero ? raw_bits(m->zero, g * (m->rows / 8) + n / 8, 1, 4 * awq_nibble[n % 8], 4) : 8;
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
    if (!code_width(m, w->dims[1], m->rows, 1u << 4) || !module_need(m, "qweight", m->cols, m->rows / 8, &m->weight) || !groups_along_columns(m, "scales"))
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
    stream_codes(m, n * m->weight->dims[1], 1, k, out);
}

void middle_scales(const struct module *m, int64_t n, int64_t g, float *scale, float *min)
{
    unsigned z = m->zero ? raw_bits(m->zero, g, m->groups, n * m->bits, m->bits) : 1u << (m->bits - 1);
    *scale = raw_float(m->scale, n * m->groups + g);
    *min = -*scale * (float)z;
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
        return bad_dtype(m, m->g_idx, "I32");
    memcpy(&first, m->g_idx->data, sizeof first);
    if (first == -1)
        m->g_idx = NULL;
    return true;
}

bool load_compressed(struct module *m, struct tensor *t, bool *found)
{
    struct raw_tensor *w = module_part(m, "weight_packed"), *shape = module_part(m, "weight_shape");
    if (!w)
        return load_bytes(m, t, found);
    *found = true;
    if (w->type == RAW_U8)
        return load_compressed_fp4(m, t);
    if (!is_words(w))
        return bad_words(m, w);
    if (!code_width(m, w->dims[1], m->cols, 0x1fe))
        return false;
    if (shape)
        shape->used = true;
    if (!module_need(m, "weight_packed", m->rows, words_of(m, m->cols), &m->weight) || !groups_along_rows(m, "weight_scale") || !compressed_order(m))
        return false;
    if (module_part(m, "weight_zero_point") && !module_need(m, "weight_zero_point", words_of(m, m->rows), m->groups, &m->zero))
        return false;
    if (m->zero && !is_words(m->zero))
        return bad_words(m, m->zero);
    m->codes = row_codes;
    m->scales = middle_scales;
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
    const char *biases = module_part(m, "qbiases") ? "qbiases" : "biases";      /* as transformers' "metal" calls them */
    if (!w || !s)
        return true;
    *found = true;
    if (!is_words(w) || s->n_dims != 2)
        return bad_words(m, w);
    if (s->type == RAW_U8)
        return load_mlx_floats(m, t);
    if (!code_width(m, w->dims[1], m->cols, 0x17e) || !module_need(m, "weight", m->rows, words_of(m, m->cols), &m->weight) ||
        !groups_along_rows(m, "scales") || !module_float(m, biases, m->rows, m->groups, &m->zero))
        return false;
    m->codes = row_codes;
    m->scales = mlx_scales;
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

static bool bnb_rows(const struct module *m, const struct tensor *t, uint8_t *data, int64_t first, int64_t last)
{
    const struct bnb *b = m->more;
    const uint8_t *packed = m->weight->data;
    struct block_nf4 *out = (struct block_nf4 *)(void *)(data + first * format_row_bytes(t->format, m->cols));
    for (int64_t i = first * m->cols; i < last * m->cols; i += 32, out++) {
        uint8_t codes[32];
        for (int j = 0; j < 32; j++)
            codes[j] = packed[(i + j) / 2] >> (j % 2 ? 0 : 4) & 15;
        for (int j = 0; j < 16; j++)
            out->qs[j] = (uint8_t)(codes[j] | codes[j + 16] << 4);
        out->absmax = bnb_absmax(b, i / b->block);
        if (!(out->absmax * 0 == 0))
            return fail(m->err, STATUS_FORMAT, "%s: %s: absmax %lld is not a finite number", m->f->metadata_path, m->base, (long long)(i / b->block));
    }
    return true;
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
    m->weight = w;
    m->more = &b;
    ok = ok && unpack_tensor(m, t, bnb_rows);
    cJSON_Delete(state);
    return ok;
}
