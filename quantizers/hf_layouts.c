/* hf_layouts.c - quantized matrices as GPTQ, AWQ and bitsandbytes lay them out (quantization.md 4, 6.1, 6.2). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "hf.h"

static struct blob *blob_add(struct blob *b, int *n, const char *suffix, const char *dtype, int64_t rows, int64_t cols)
{
    b[*n] = (struct blob){ suffix, dtype, cols ? 2 : 1, { rows, cols }, NULL };
    return &b[(*n)++];
}

static bool blob_room(struct blob *b, size_t bytes, struct error *err)
{
    b->bytes = mem_new(bytes + 1, 1, err);
    return b->bytes != NULL;
}

static void put32(uint8_t *to, uint32_t v)
{
    memcpy(to, &v, 4);
}

/* ---- GPTQ and AWQ: codes, scales and zeros of groups along the input ---- */

static int code_at(const struct block_i4m *row, int64_t c)
{
    int64_t j = c % 32;
    return row[c / 32].qs[j % 16] >> (j < 16 ? 0 : 4) & 15;
}

static const struct block_i4m *row_of(const struct part *p, int64_t mat, int64_t r)
{
    const struct tensor *t = p->source;
    return (const struct block_i4m *)p->data + (mat * t->rows + part_source_row(p, r)) * (t->cols / 32);
}

static int zero_of(const struct block_i4m *b)
{
    return b->d != 0 ? (int)rintf(-b->m / b->d) & 15 : 8;
}

static int group_of(const struct job *j)
{
    return layout_find(j->method->info.name, j->format)->group;
}

/* qweight: 8 codes along the input a word, lowest bits first; qzeros: 8 zeros along the output. */
static bool pack_gptq(const struct job *j, const struct part *p, int64_t mat, bool bytes, struct blob *b, int *n, struct error *err)
{
    int64_t k = p->source->cols, out = p->source->rows, g = group_of(j), groups = k / g;
    *n = 0;
    struct blob *w = blob_add(b, n, ".qweight", "I32", k / 8, out), *z = blob_add(b, n, ".qzeros", "I32", groups, out / 8);
    struct blob *s = blob_add(b, n, ".scales", "F16", groups, out), *x = blob_add(b, n, ".g_idx", "I32", k, 0);
    if (!bytes)
        return true;
    if (!blob_room(w, (size_t)(k / 8 * out * 4), err) || !blob_room(z, (size_t)(groups * out / 2), err) ||
        !blob_room(s, (size_t)(groups * out * 2), err) || !blob_room(x, (size_t)k * 4, err))
        return false;
    for (int64_t i = 0; i < k; i++)
        put32(x->bytes + 4 * i, (uint32_t)(i / g));
    for (int64_t r = 0; r < out; r++) {
        const struct block_i4m *row = row_of(p, mat, r);
        for (int64_t i = 0; i < k / 8; i++) {
            uint32_t word = 0;
            for (int c = 0; c < 8; c++)
                word |= (uint32_t)code_at(row, 8 * i + c) << 4 * c;
            put32(w->bytes + 4 * (i * out + r), word);
        }
        for (int64_t i = 0; i < groups; i++) {
            uint16_t h = f32_to_f16(row[i * g / 32].d);
            memcpy(s->bytes + 2 * (i * out + r), &h, 2);
            z->bytes[(i * out + r) / 2] |= (uint8_t)(zero_of(&row[i * g / 32]) << 4 * (r % 2));
        }
    }
    return true;
}

/* Everything packed along the output, eight columns a word in the order 0 2 4 6 1 3 5 7. */
static bool pack_awq(const struct job *j, const struct part *p, int64_t mat, bool bytes, struct blob *b, int *n, struct error *err)
{
    static const int nibble[8] = { 0, 4, 1, 5, 2, 6, 3, 7 };
    int64_t k = p->source->cols, out = p->source->rows, g = group_of(j), groups = k / g;
    *n = 0;
    struct blob *w = blob_add(b, n, ".qweight", "I32", k, out / 8), *z = blob_add(b, n, ".qzeros", "I32", groups, out / 8);
    struct blob *s = blob_add(b, n, ".scales", "F16", groups, out);
    if (!bytes)
        return true;
    if (!blob_room(w, (size_t)(k * out / 2), err) || !blob_room(z, (size_t)(groups * out / 2), err) || !blob_room(s, (size_t)(groups * out * 2), err))
        return false;
    for (int64_t r = 0; r < out; r++) {
        const struct block_i4m *row = row_of(p, mat, r);
        int at = nibble[r % 8];
        for (int64_t i = 0; i < k; i++)
            w->bytes[(i * out + r / 8 * 8) / 2 + at / 2] |= (uint8_t)(code_at(row, i) << 4 * (at % 2));
        for (int64_t i = 0; i < groups; i++) {
            uint16_t h = f32_to_f16(row[i * g / 32].d);
            memcpy(s->bytes + 2 * (i * out + r), &h, 2);
            z->bytes[(i * out + r / 8 * 8) / 2 + at / 2] |= (uint8_t)(zero_of(&row[i * g / 32]) << 4 * (at % 2));
        }
    }
    return true;
}

static cJSON *gptq_config(const struct job *j)
{
    const struct layout *l = layout_find(j->method->info.name, j->format);
    cJSON *q = cJSON_CreateObject();
    cJSON_AddStringToObject(q, "quant_method", "gptq");
    cJSON_AddNumberToObject(q, "bits", 4);
    cJSON_AddNumberToObject(q, "group_size", l->group);
    cJSON_AddBoolToObject(q, "sym", l->symmetric);
    cJSON_AddBoolToObject(q, "desc_act", false);        /* the order of the sweep left the columns in place */
    cJSON_AddBoolToObject(q, "true_sequential", true);
    cJSON_AddBoolToObject(q, "static_groups", true);
    cJSON_AddBoolToObject(q, "lm_head", false);
    cJSON_AddStringToObject(q, "checkpoint_format", "gptq_v2");         /* zeros as they are, not less one */
    cJSON *meta = cJSON_AddObjectToObject(q, "meta");
    cJSON_AddStringToObject(meta, "quantizer", "qdelta");
    return q;
}

static cJSON *awq_config(const struct job *j)
{
    const struct layout *l = layout_find(j->method->info.name, j->format);
    cJSON *q = cJSON_CreateObject();
    cJSON_AddStringToObject(q, "quant_method", "awq");
    cJSON_AddNumberToObject(q, "bits", 4);
    cJSON_AddNumberToObject(q, "group_size", l->group);
    cJSON_AddBoolToObject(q, "zero_point", true);
    cJSON_AddStringToObject(q, "version", "gemm");
    return q;
}

/* ---- bitsandbytes ---- */

/* Midpoints of the nf4 values: the code is the number of them below x. */
static const float nf4_edges[15] = {
    -0.8480964004993439f, -0.6106329262256622f, -0.4599952697753906f, -0.3396793603897095f, -0.2346074134111404f,
    -0.1379117071628571f, -0.0455250181257725f, 0.0397901386022568f, 0.1202552989125252f, 0.2035213708877563f,
    0.2920137718319893f, 0.3893125206232071f, 0.5016634166240692f, 0.6427868604660034f, 0.8614784181118011f,
};

static int nf4_code(float x)
{
    int code = 0;
    for (int i = 0; i < 15; i++)
        code += x > nf4_edges[i];
    return code;
}

/* The values are not in order of their codes.  A tie goes to the lower value, so to the larger size below zero. */
static int fp4_code(float x)
{
    static const int by_size[8] = { 0, 1, 6, 7, 4, 5, 2, 3 };
    float size = fabsf(x);
    int at = 0;
    for (float edge; at < 7; at++) {
        edge = (fp4_values[by_size[at]] + fp4_values[by_size[at + 1]]) / 2;
        if (x < 0 ? size < edge : size <= edge)
            break;
    }
    return by_size[at] | (x < 0 ? 8 : 0);
}

void bnb_codes(enum format_id f, const float *w, int64_t n, uint8_t *codes, float *absmax)
{
    for (int64_t from = 0; from < n; from += 64) {
        int64_t to = from + 64 < n ? from + 64 : n;
        float max = 0;
        for (int64_t i = from; i < to; i++)
            max = fabsf(w[i]) > max ? fabsf(w[i]) : max;
        absmax[from / 64] = max;
        for (int64_t i = from; i < to; i++) {
            float x = max > 0 ? w[i] / max : 0;
            int code = f == FORMAT_NF4 ? nf4_code(x) : fp4_code(x);
            codes[i / 2] = (uint8_t)(i % 2 ? codes[i / 2] | code : code << 4);
        }
    }
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

/* Point i of n + 1 evenly from 0.1 to 1, counted from the nearer end with one rounding, as the library does it. */
static float even_step(int i, int n)
{
    double step = (double)((1.0f - 0.1f) / (float)n);
    return i < (n + 1) / 2 ? (float)((double)0.1f + step * i) : (float)(1 - step * (n - i));
}

/* bitsandbytes' signed dynamic map: seven decades, twice as many steps in each larger one. */
static void dynamic_map(float map[256])
{
    static const float decade[7] = { 1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1 };
    int n = 0;
    for (int i = 0; i < 7; i++)
        for (int s = 0; s < 1 << i; s++) {
            float mid = decade[i] * ((even_step(s, 1 << i) + even_step(s + 1, 1 << i)) / 2);
            map[n++] = mid;
            map[n++] = -mid;
        }
    map[n++] = 0;
    map[n++] = 1;
    qsort(map, 256, sizeof *map, by_value);
}

static uint8_t nearest_in(const float map[256], float x)
{
    int lo = 0, hi = 255;
    while (hi - lo > 1) {
        int mid = (lo + hi) / 2;
        if (x >= map[mid])
            lo = mid;
        else
            hi = mid;
    }
    return (uint8_t)(x - map[lo] > map[hi] - x ? hi : lo);
}

struct nested {
    float offset, *absmax;
    uint8_t *codes;
    int64_t n;
};

static void nest(const float *absmax, struct nested *x, const float map[256])
{
    double sum = 0;
    for (int64_t i = 0; i < x->n; i++)
        sum += (double)absmax[i];
    x->offset = (float)(sum / (double)x->n);
    for (int64_t from = 0; from < x->n; from += 256) {
        int64_t to = from + 256 < x->n ? from + 256 : x->n;
        float max = 0;
        for (int64_t i = from; i < to; i++)
            max = fabsf(absmax[i] - x->offset) > max ? fabsf(absmax[i] - x->offset) : max;
        x->absmax[from / 256] = max;
        for (int64_t i = from; i < to; i++)
            x->codes[i] = nearest_in(map, max > 0 ? (absmax[i] - x->offset) / max : 0);
    }
}

static const char *dtype_name(enum format_id f)
{
    return f == FORMAT_F16 ? "float16" : f == FORMAT_F32 ? "float32" : "bfloat16";
}

static bool bnb_state(const struct part *p, const struct layout *l, const struct nested *x, struct text *t, struct error *err)
{
    text_printf(t, "{\"quant_type\": \"%s\", \"blocksize\": 64, \"dtype\": \"%s\", \"shape\": [%lld, %lld]", formats[l->to].name,
                dtype_name(p->source->format), (long long)p->source->rows, (long long)p->source->cols);
    if (l->nested)
        text_printf(t, ", \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", \"nested_offset\": %.17g", (double)x->offset);
    text_putc(t, '}');
    return text_ok(t, err);
}

/* Rows of a matrix in the folder's order. */
static bool folder_rows(const struct part *p, int64_t mat, float *w, struct error *err)
{
    for (int64_t r = 0; r < p->source->rows; r++)
        if (!part_row(p, mat, part_source_row(p, r), w + r * p->source->cols, err))
            return false;
    return true;
}

static bool bnb_fill(const struct part *p, int64_t mat, const struct layout *l, struct blob *b, struct nested *x,
                     struct text *state, struct error *err)
{
    int64_t n = p->source->rows * p->source->cols;
    float map[256], *w = mem_new_aligned((size_t)n, sizeof *w, err), *absmax = mem_new((size_t)x->n, sizeof *absmax, err);
    bool ok = w && absmax && folder_rows(p, mat, w, err) && blob_room(&b[0], (size_t)n / 2, err);
    if (ok)
        bnb_codes(l->to, w, n, b[0].bytes, absmax);
    if (ok && l->nested) {
        dynamic_map(map);
        ok = blob_room(&b[1], (size_t)x->n, err) && blob_room(&b[3], (size_t)(x->n + 255) / 256 * 4, err) && blob_room(&b[4], sizeof map, err);
        if (ok) {
            x->codes = b[1].bytes;
            x->absmax = (float *)(void *)b[3].bytes;
            nest(absmax, x, map);
            memcpy(b[4].bytes, map, sizeof map);
        }
    } else if (ok && (ok = blob_room(&b[1], (size_t)x->n * 4, err))) {
        memcpy(b[1].bytes, absmax, (size_t)x->n * 4);
    }
    ok = ok && blob_room(&b[2], 64, err) && bnb_state(p, l, x, state, err);
    if (ok)
        for (int i = 0; i < 16; i++) {
            float v = (l->to == FORMAT_NF4 ? nf4_values : fp4_values)[i] + 0.0f;        /* no negative zero */
            memcpy(b[2].bytes + 4 * i, &v, 4);
        }
    free(w);
    free(absmax);
    return ok;
}

/* How long the state text can become; its end is filled with blanks so that shapes are known beforehand. */
enum { STATE_BYTES = 256 };

static bool pack_bnb(const struct job *j, const struct part *p, int64_t mat, bool bytes, struct blob *b, int *n, struct error *err)
{
    const struct layout *l = layout_find(j->method->info.name, j->format);
    int64_t size = p->source->rows * p->source->cols, blocks = (size + 63) / 64;
    *n = 0;
    blob_add(b, n, ".weight", "U8", size / 2, 1);
    blob_add(b, n, ".weight.absmax", l->nested ? "U8" : "F32", blocks, 0);
    blob_add(b, n, ".weight.quant_map", "F32", 16, 0);
    if (l->nested) {
        blob_add(b, n, ".weight.nested_absmax", "F32", (blocks + 255) / 256, 0);
        blob_add(b, n, ".weight.nested_quant_map", "F32", 256, 0);
    }
    struct blob *state = blob_add(b, n, l->to == FORMAT_NF4 ? ".weight.quant_state.bitsandbytes__nf4" : ".weight.quant_state.bitsandbytes__fp4",
                                  "U8", STATE_BYTES, 0);
    if (!bytes)
        return true;
    struct nested x = { .n = blocks };
    struct text text = { 0 };
    bool ok = bnb_fill(p, mat, l, b, &x, &text, err) && blob_room(state, STATE_BYTES, err);
    if (ok) {
        memset(state->bytes, ' ', STATE_BYTES);
        memcpy(state->bytes, text.data, text.len < STATE_BYTES ? text.len : STATE_BYTES);
    }
    text_free(&text);
    return ok;
}

static cJSON *bnb_config(const struct job *j)
{
    const struct layout *l = layout_find(j->method->info.name, j->format);
    cJSON *q = cJSON_CreateObject();
    cJSON_AddStringToObject(q, "quant_method", "bitsandbytes");
    cJSON_AddBoolToObject(q, "load_in_4bit", true);
    cJSON_AddBoolToObject(q, "load_in_8bit", false);
    cJSON_AddStringToObject(q, "bnb_4bit_quant_type", formats[l->to].name);
    cJSON_AddBoolToObject(q, "bnb_4bit_use_double_quant", l->nested);
    cJSON_AddStringToObject(q, "bnb_4bit_compute_dtype", "bfloat16");
    cJSON_AddStringToObject(q, "bnb_4bit_quant_storage", "uint8");
    return q;
}

/* ---- the table ---- */

static const struct {
    const char *method;
    struct layout layout;
} layouts[] = {
    { "gptq", { "int4-g128", FORMAT_I4M, 128, true, false, pack_gptq, gptq_config } },
    { "gptq", { "int4-g128-asym", FORMAT_I4M, 128, false, false, pack_gptq, gptq_config } },
    { "gptq", { "int4-g32", FORMAT_I4M, 32, true, false, pack_gptq, gptq_config } },
    { "awq", { "int4-g128-asym", FORMAT_I4M, 128, false, false, pack_awq, awq_config } },
    { "awq", { "int4-g32-asym", FORMAT_I4M, 32, false, false, pack_awq, awq_config } },
    { "nf4", { "nf4", FORMAT_NF4, 64, true, false, pack_bnb, bnb_config } },
    { "nf4", { "nf4-double", FORMAT_NF4, 64, true, true, pack_bnb, bnb_config } },
    { "fp4", { "fp4", FORMAT_FP4, 64, true, false, pack_bnb, bnb_config } },
    { "fp4", { "fp4-double", FORMAT_FP4, 64, true, true, pack_bnb, bnb_config } },
};

const struct layout *layout_find(const char *method, const char *format)
{
    for (size_t i = 0; i < ARRAY_LEN(layouts) && format; i++)
        if (strcmp(layouts[i].method, method) == 0 && strcmp(layouts[i].layout.name, format) == 0)
            return &layouts[i].layout;
    return NULL;
}

bool layout_takes(const struct layout *l, const struct model *m, const struct tensor *t)
{
    static const char *const linear[] = { "attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight", "ffn_gate.weight",
                                          "ffn_up.weight", "ffn_down.weight", "ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight" };
    bool found = false;
    for (size_t i = 0; i < ARRAY_LEN(linear); i++)
        found |= str_ends(t->name, linear[i]) && t->name[strlen(t->name) - strlen(linear[i]) - 1] == '.';
    return found && t->cols % l->group == 0 && t->rows % 8 == 0 && (t->mats == 1 || hf_expert_apart(m, t->name));
}
