/* packed_bytes.c - a byte a weight: E4M3 floats or signed integers called "weight", with scales for the matrix, its rows, groups
 * of columns or blocks of both.  DeepSeek's and Qwen's fp8 (weight_scale_inv, which multiplies in spite of its name), fbgemm_fp8,
 * compressed-tensors' float-quantized and int-quantized.  And Google's own layout of the mobile QAT models, whose bytes hold one, two or
 * four weights. */
#include "packed.h"

void byte_codes(const struct module *m, int64_t n, const int32_t *k, uint8_t *out)
{
    for (int i = 0; i < 32; i++)
        out[i] = m->weight->data[n * m->cols + k[i]] ^ 0x80;
}

void byte_scales(const struct module *m, int64_t n, int64_t g, float *scale, float *min)
{
    int64_t i = n / m->row_block * m->groups + g;
    float zero = !m->zero ? 0 : m->zero->type == RAW_I8 ? (float)(int8_t)m->zero->data[i] : raw_float(m->zero, i);
    *scale = raw_float(m->scale, i);
    *min = -*scale * (zero + 128);
}

/* How many rows and columns share one of the scales, by their shape and the config. */
static bool scale_grid(struct module *m, const char *name, struct raw_tensor *s)
{
    const int64_t *block = m->rules->block;
    int64_t d0 = s->n_dims > 0 ? s->dims[0] : 1, d1 = s->n_dims > 1 ? s->dims[1] : 1;
    m->groups = d1;
    bool blocks = block[0] && block[1] && d0 == (m->rows + block[0] - 1) / block[0] && d1 == (m->cols + block[1] - 1) / block[1], one = d0 == 1 && d1 == 1;
    m->row_block = one ? m->rows : blocks ? block[0] : 1;
    m->group = one ? m->cols : blocks ? block[1] : (m->cols + d1 - 1) / d1;
    if (s->n_dims > 2 || (!one && !blocks && (d0 != m->rows || d1 != (m->cols + m->group - 1) / m->group)))
        return fail(m->err, STATUS_FORMAT, "%s: %s is [%lld x %lld] for a matrix of [%lld x %lld]%s", s->file, s->name, (long long)d0, (long long)d1,
                    (long long)m->rows, (long long)m->cols, block[0] ? ", which fits neither rows nor the blocks that config.json names" : "");
    if (s->n_dims)
        return module_float(m, name, d0, s->n_dims > 1 ? d1 : 0, &m->scale);
    s->used = true;             /* a number without a shape */
    m->scale = s;
    return s->type == RAW_F32 || s->type == RAW_F16 || s->type == RAW_BF16 || bad_dtype(m, s, "F32, F16 or BF16");
}

void use_input_scales(struct module *m)
{
    static const char *const names[] = { "input_scale", "input_scale_ub", "input_zero_point", "activation_scale", "input_global_scale", "k_scale", "v_scale" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct raw_tensor *r = module_part(m, names[i]);
        if (r)
            r->used = true;
    }
}

bool load_bytes(struct module *m, struct tensor *t, bool *found)
{
    const char *name = module_part(m, "weight_scale_inv") ? "weight_scale_inv" : "weight_scale";
    struct raw_tensor *w = module_part(m, "weight"), *s = module_part(m, name), *zero = module_part(m, "weight_zero_point");
    if (!w || !s || (w->type != RAW_F8 && w->type != RAW_I8))
        return true;
    *found = true;
    if (!module_need(m, "weight", m->rows, m->cols, &m->weight) || !scale_grid(m, name, s))
        return false;
    if (zero && (w->type == RAW_F8 || zero->type != RAW_I8))
        return bad_dtype(m, zero, "I8, and beside integer weights");
    if (zero && (!module_need(m, "weight_zero_point", s->dims[0], s->n_dims > 1 ? s->dims[1] : 0, &m->zero)))
        return false;
    use_input_scales(m);
    m->bits = 8;
    m->codes = byte_codes;
    m->scales = byte_scales;
    return w->type == RAW_F8 ? unpack_f8(m, t) : unpack_matrix(m, t);
}

/* ---- Google's layout ("gemma"): bytes filled from the lowest bits, codes with the zero in the middle; embeddings under names of
 * their own ---- */

static void gemma_codes(const struct module *m, int64_t n, const int32_t *k, uint8_t *out)
{
    for (int i = 0; i < 32; i++) {
        int64_t at = (int64_t)k[i] * m->bits;
        out[i] = (uint8_t)(m->weight->data[n * m->weight->dims[1] + at / 8] >> at % 8 & ((1 << m->bits) - 1));
    }
}

/* A scale of 0 means that the activations of this matrix were not calibrated and stay as they are. */
static void gemma_activations(struct module *m)
{
    static const char *const names[] = { "input_activation_scale", "output_activation_scale" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct raw_tensor *r = module_part(m, names[i]);
        if (r && (r->type == RAW_F32 || r->type == RAW_F16 || r->type == RAW_BF16)) {
            r->used = true;
            m->f->rounds_activations |= raw_float(r, 0) != 0;
        }
    }
}

bool load_gemma(struct module *m, struct tensor *t, bool *found)
{
    bool embedding = module_part(m, "embedding_quantized") != NULL;
    const char *weight = embedding ? "embedding_quantized" : "weight", *scale = embedding ? "embedding_scale" : "weight_scale";
    struct raw_tensor *w = module_part(m, weight);
    if (!w || (w->type != RAW_U8 && w->type != RAW_I8))
        return true;
    *found = true;
    m->bits = w->type == RAW_I8 ? 8 : w->n_dims == 2 && w->dims[1] * 4 == m->cols ? 2 : 4;
    if (!module_need(m, weight, m->rows, m->cols * m->bits / 8, &m->weight) || !groups_along_rows(m, scale))
        return false;
    gemma_activations(m);
    m->codes = w->type == RAW_I8 ? byte_codes : gemma_codes;
    m->scales = middle_scales;
    return unpack_matrix(m, t);
}
