/* packed_floats.c - floats of 4 and 8 bits in blocks with a scale of 8 bits: MLX's mxfp4, nvfp4 and mxfp8, compressed-tensors'
 * nvfp4 and mxfp4, NVIDIA's modelopt.  The 4-bit ones become ggml's blocks of the same names, nibbles in another order; where a scale for the
 * matrix is beside those of the blocks, the two are one f32 number in ours (format.h, F4). */
#include "packed.h"

#include <math.h>

/* ---- four bits ---- */

/* Scales first, then each sub-block's nibbles: element j low, element j + half high.  A row of weights is words of eight. */
static void fp4_block(const struct module *m, const struct format *f, int64_t n, int64_t k, uint8_t *out)
{
    int sub = f->int_block, subs = f->block / sub, head = f->block_bytes - f->block / 2;
    int64_t row = n * (m->cols / 8);
    for (int s = 0; s < subs; s++, k += sub) {
        uint8_t *nibbles = out + head + s * sub / 2, byte = m->scale->data[n * m->groups + k / sub];
        float scale = m->divide ? e4m3_to_f32(byte) / m->global : e4m3_to_f32(byte) * m->global;
        if (head == subs)
            out[s] = byte;
        else
            memcpy(out + 4 * s, &scale, sizeof scale);
        for (int j = 0; j < sub / 2; j++)
            nibbles[j] = (uint8_t)(raw_bits(m->weight, row, 1, 4 * (k + j), 4) | raw_bits(m->weight, row, 1, 4 * (k + j + sub / 2), 4) << 4);
    }
}

static bool fp4_rows(const struct module *m, const struct tensor *t, uint8_t *data, int64_t first, int64_t last)
{
    const struct format *f = &formats[t->format];
    uint8_t *out = data + first * format_row_bytes(t->format, m->cols);
    for (int64_t i = first * m->cols; i < last * m->cols; i += f->block, out += f->block_bytes)
        fp4_block(m, f, i / m->cols, i % m->cols, out);
    return true;
}

static bool unpack_fp4(struct module *m, struct tensor *t, enum format_id id)
{
    const struct format *f = &formats[id];
    uint8_t most = id == FORMAT_MXFP4 ? 0xfe : 0x7e;   /* above: not a number, or negative */
    if (m->cols % f->block)
        return fail(m->err, STATUS_UNSUPPORTED, "%s: %s: rows of %lld, which %s wants to be a multiple of %d", m->f->metadata_path, m->base,
                    (long long)m->cols, f->name, f->block);
    for (int64_t i = 0; i < m->rows * m->groups; i++)
        if (m->scale->data[i] > most)
            return fail(m->err, STATUS_FORMAT, "%s: %s[%lld] is 0x%02x, not a finite positive number", m->scale->file, m->scale->name, (long long)i,
                        m->scale->data[i]);
    t->format = id;
    return unpack_tensor(m, t, fp4_rows);
}

/* ---- MLX: which mode, the shapes tell: a scale byte for 32 or for 16 elements of four bits, or for 32 of eight ---- */

static void e8m0_scales(const struct module *m, int64_t n, int64_t g, float *scale, float *min)
{
    uint8_t e = m->scale->data[n * m->groups + g];
    *scale = e == 0xff ? NAN : ldexpf(1, e - 127);
    *min = 0;
}

bool load_mlx_floats(struct module *m, struct tensor *t)
{
    int64_t words = module_part(m, "weight")->dims[1], groups = module_part(m, "scales")->dims[1];
    bool eight = words * 4 == m->cols, wide = groups * 32 == m->cols;
    m->groups = groups;
    m->group = 32;
    m->scales = e8m0_scales;
    if ((!eight && words * 8 != m->cols) || (!wide && (eight || groups * 16 != m->cols)))
        return fail(m->err, STATUS_UNSUPPORTED, "%s: %s has neither biases nor the shapes of mxfp4, nvfp4 or mxfp8 (%lld words, %lld scales a row of %lld)",
                    m->f->metadata_path, m->base, (long long)words, (long long)groups, (long long)m->cols);
    if (!module_need(m, "weight", m->rows, words, &m->weight) || !module_need(m, "scales", m->rows, groups, &m->scale))
        return false;
    return eight ? unpack_f8(m, t) : unpack_fp4(m, t, wide ? FORMAT_MXFP4 : FORMAT_NVFP4);
}

/* ---- compressed-tensors and modelopt: two weights a byte, the even column low ---- */

/* The scale of the matrix: one number, by whatever shape; absent: *found stays false. */
static bool global_scale(struct module *m, const char *name, bool divide, bool *found)
{
    struct raw_tensor *r = module_part(m, name);
    *found = r != NULL;
    if (!r)
        return true;
    r->used = true;
    if (r->type != RAW_F32 || r->bytes != 4)
        return bad_dtype(m, r, "one number in F32");
    m->global = raw_float(r, 0);
    m->divide = divide;
    return (isfinite(m->global) && m->global > 0) || fail(m->err, STATUS_FORMAT, "%s: %s is %g, not a finite positive number", r->file, r->name, (double)m->global);
}

static bool load_fp4(struct module *m, struct tensor *t, const char *weight, const char *global, bool divide)
{
    struct raw_tensor *s = module_part(m, "weight_scale");
    bool with_global;
    if (!s || (s->type != RAW_U8 && s->type != RAW_F8))
        return s ? bad_dtype(m, s, "U8 or F8_E4M3")
                 : fail(m->err, STATUS_FORMAT, "%s: %s has no weight_scale", m->f->metadata_path, m->base);
    bool e4m3 = s->type == RAW_F8;
    m->groups = m->cols / (e4m3 ? 16 : 32);
    use_input_scales(m);
    if (!module_need(m, weight, m->rows, m->cols / 2, &m->weight) || !module_need(m, "weight_scale", m->rows, m->groups, &m->scale) ||
        !global_scale(m, global, divide, &with_global))
        return false;
    if (with_global && !e4m3)
        return bad_dtype(m, s, "F8_E4M3 beside a scale for the matrix");
    return unpack_fp4(m, t, !e4m3 ? FORMAT_MXFP4 : with_global ? FORMAT_F4 : FORMAT_NVFP4);
}

bool load_compressed_fp4(struct module *m, struct tensor *t)
{
    return load_fp4(m, t, "weight_packed", "weight_global_scale", true);
}

bool load_modelopt(struct module *m, struct tensor *t, bool *found)
{
    struct raw_tensor *w = module_part(m, "weight");
    if (!w || w->type != RAW_U8)
        return load_bytes(m, t, found);
    *found = true;
    return load_fp4(m, t, "weight", "weight_scale_2", false);
}
