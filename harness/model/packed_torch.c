/* packed_torch.c - checkpoints whose tensors are the parts of PyTorch classes: torchao and HQQ (quantization.md 6.8, 6.9). */
#include "packed.h"

/* ---- torchao: NAME.weight of class C is stored as NAME._weight_qdata, _scale ..; the header's metadata names the class ---- */

/* Int4Tensor: signed nibbles, even input first; scales and float zeros stand transposed, [groups x rows]. */
static void int4_codes(const struct module *m, int64_t n, const int32_t *k, uint8_t *out)
{
    for (int i = 0; i < 32; i++) {
        uint8_t byte = m->weight->data[n * (m->cols / 2) + k[i] / 2];
        out[i] = (uint8_t)((byte >> 4 * (k[i] & 1) & 15) ^ 8);
    }
}

static void int4_scales(const struct module *m, int64_t n, int64_t g, float *scale, float *min)
{
    *scale = raw_float(m->scale, g * m->rows + n);
    *min = raw_float(m->zero, g * m->rows + n) - 8 * *scale;
}

static bool int4_parts(struct module *m)
{
    m->bits = 4;
    m->codes = int4_codes;
    m->scales = int4_scales;
    return module_need(m, "_weight_qdata", m->rows, m->cols / 2, &m->weight) && groups_along_columns(m, "_weight_scale") &&
           module_float(m, "_weight_zero_point", m->groups, m->rows, &m->zero);
}

/* Int8Tensor, IntxUnpackedToInt8Tensor: a signed byte a weight, of which Intx may use fewer bits; [rows x groups]. */
static bool int8_parts(struct module *m)
{
    struct raw_tensor *zero = module_part(m, "_weight_zero_point");
    m->bits = 8;
    m->row_block = 1;
    m->codes = byte_codes;
    m->scales = byte_scales;
    if (!module_need(m, "_weight_qdata", m->rows, m->cols, &m->weight) || !groups_along_rows(m, "_weight_scale"))
        return false;
    if (!zero)
        return true;
    return zero->type == RAW_I8 ? module_need(m, "_weight_zero_point", m->rows, m->groups, &m->zero)
                                : module_float(m, "_weight_zero_point", m->rows, m->groups, &m->zero);
}

static const struct torchao_class {
    const char *name;
    const char *activations;    /* attribute that says how activations are quantized; null: not */
    bool (*parts)(struct module *m);
} torchao_classes[] = {
    { "Int4Tensor", NULL, int4_parts },
    { "IntxUnpackedToInt8Tensor", "activation_quantization", int8_parts },
    { "Int8Tensor", "act_quant_kwargs", int8_parts },
};

/* The class of the matrix; activations multiplied by something would need that something. */
static const struct torchao_class *torchao_class(struct module *m)
{
    char key[256], name[64] = "(not named)";
    snprintf(key, sizeof key, "safetensors.%s.weight", m->base);
    const char *text = kv_string(m->f, key);
    cJSON *json = text ? json_parse(text, strlen(text), key, m->err) : NULL;
    const cJSON *type = json ? json_get(json, "_type") : NULL, *data = json ? json_get(json, "_data") : NULL;
    const struct torchao_class *c = NULL;
    bool active = false;
    if (cJSON_IsString(type))
        snprintf(name, sizeof name, "%s", type->valuestring);
    for (size_t i = 0; i < ARRAY_LEN(torchao_classes); i++)
        if (!strcmp(torchao_classes[i].name, name))
            c = &torchao_classes[i];
    if (c && c->activations && data) {
        const cJSON *a = cJSON_GetObjectItemCaseSensitive(data, c->activations);
        active = a && !cJSON_IsNull(a);
    }
    cJSON_Delete(json);
    m->f->rounds_activations |= active;
    if (c && !module_part(m, "_weight_act_pre_scale"))
        return c;
    fail(m->err, STATUS_UNSUPPORTED, "%s: %s is torchao's %s%s; read are Int4Tensor, IntxUnpackedToInt8Tensor and Int8Tensor without such scales",
         m->f->metadata_path, m->base, name, c ? " with scaled activations" : "");
    return NULL;
}

bool load_torchao(struct module *m, struct tensor *t, bool *found)
{
    struct raw_tensor *q = module_part(m, "_weight_qdata");
    if (!q)
        return true;
    *found = true;
    const struct torchao_class *c = torchao_class(m);
    if (!c)
        return false;
    if (q->type != RAW_I8 && q->type != RAW_U8)
        return bad_dtype(m, q, "I8");
    return c->parts(m) && unpack_matrix(m, t);
}

/* ---- HQQ: the matrix as rows of one group each; the rows lie in as many parts as a byte or word holds codes, the first
 * part in its highest bits; value = (code - zero) * scale, zero a float ---- */

static int hqq_width(const struct module *m)
{
    return m->bits > 4 ? 8 : m->bits;
}

static int hqq_per_unit(const struct module *m)
{
    return m->bits == 3 ? 10 : 8 / hqq_width(m);
}

static void hqq_codes(const struct module *m, int64_t n, const int32_t *k, uint8_t *out)
{
    int64_t parts = m->weight->dims[0];
    int width = hqq_width(m);
    for (int i = 0; i < 32; i++) {
        int64_t row = (n * m->cols + k[i]) / m->group, unit = row % parts * m->group + k[i] % m->group;
        uint32_t word = m->bits == 3 ? raw_word(m->weight, unit) : m->weight->data[unit];
        out[i] = (uint8_t)(word >> width * (hqq_per_unit(m) - 1 - (int)(row / parts)) & ((1u << width) - 1));
    }
}

static void hqq_scales(const struct module *m, int64_t n, int64_t g, float *scale, float *min)
{
    *scale = raw_float(m->scale, n * m->groups + g);
    *min = -*scale * raw_float(m->zero, n * m->groups + g);
}

/* A number that HQQ keeps as a tensor of one element: I32, or U8 for truth values. */
static bool hqq_number(struct module *m, const char *name, int *out)
{
    const struct raw_tensor *r = module_part(m, name);
    if (!r || !((r->type == RAW_I32 && r->bytes == 4) || (r->type == RAW_U8 && r->bytes == 1)))
        return fail(m->err, STATUS_FORMAT, "%s: %s has no number %s", m->f->metadata_path, m->base, name);
    *out = r->type == RAW_U8 ? r->data[0] : (int)raw_word(r, 0);
    return true;
}

/* What the layer says about itself has been read or does not matter: no strangers. */
static void hqq_use_all(struct module *m)
{
    static const char *const names[] = { "axis", "channel_wise", "compute_dtype", "encoded_state_dict", "group_size", "nbits", "offload_meta", "optimize",
                                         "packing", "quant_scale", "quant_zero", "round_zero", "shape", "stores_quant_config", "unpack_view_dtype",
                                         "view_as_float" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct raw_tensor *r = module_part(m, names[i]);
        if (r)
            r->used = true;
    }
}

static bool hqq_supported(struct module *m)
{
    static const struct { const char *name, *why; } zero[] = {
        { "view_as_float", "codes kept as floats" }, { "quant_scale", "quantized scales" }, { "quant_zero", "quantized zero points" },
    };
    int axis, group, value;
    if (!hqq_number(m, "nbits", &m->bits) || !hqq_number(m, "axis", &axis) || !hqq_number(m, "group_size", &group))
        return false;
    m->group = group;
    if (axis != 1)
        return fail(m->err, STATUS_UNSUPPORTED, "%s: %s has axis %d: its groups run across the rows, so that every column has scales of its own; only "
                    "axis 1 is read", m->f->metadata_path, m->base, axis);
    for (size_t i = 0; i < ARRAY_LEN(zero); i++)
        if (module_part(m, zero[i].name) && (!hqq_number(m, zero[i].name, &value) || value))
            return fail(m->err, STATUS_UNSUPPORTED, "%s: %s has %s (%s), which are not read", m->f->metadata_path, m->base, zero[i].why, zero[i].name);
    if (m->bits < 1 || m->bits > 8 || m->bits == 7)
        return fail(m->err, STATUS_UNSUPPORTED, "%s: %s: %d-bit weights, HQQ has 1 to 6 and 8", m->f->metadata_path, m->base, m->bits);
    if (group < 1 || m->cols % group)
        return fail(m->err, STATUS_UNSUPPORTED, "%s: %s: groups of %d do not divide rows of %lld", m->f->metadata_path, m->base, group, (long long)m->cols);
    return true;
}

bool load_hqq(struct module *m, struct tensor *t, bool *found)
{
    struct raw_tensor *w = module_part(m, "W_q");
    if (!w)
        return true;
    *found = true;
    if (!hqq_supported(m))
        return false;
    enum raw_type unit = m->bits == 3 ? RAW_I32 : RAW_U8;
    m->groups = m->cols / m->group;
    int64_t all = m->rows * m->groups, per = hqq_per_unit(m);
    if (!module_need(m, "W_q", (all + per - 1) / per, m->group, &m->weight) || !module_float(m, "scale", all, 1, &m->scale) ||
        !module_float(m, "zero", all, 1, &m->zero))
        return false;
    if (w->type != unit)
        return bad_dtype(m, w, m->bits == 3 ? "I32" : "U8");
    hqq_use_all(m);
    m->codes = hqq_codes;
    m->scales = hqq_scales;
    return unpack_matrix(m, t);
}
