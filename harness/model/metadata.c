/* metadata.c - a list of GGUF key-values: read from a GGUF, or made from a config.json. */
#include "files.h"

static const struct {
    const char *name;
    size_t size;
} types[] = {
    [GGUF_U8] = { "u8", 1 },   [GGUF_I8] = { "i8", 1 },   [GGUF_U16] = { "u16", 2 }, [GGUF_I16] = { "i16", 2 },
    [GGUF_U32] = { "u32", 4 }, [GGUF_I32] = { "i32", 4 }, [GGUF_F32] = { "f32", 4 }, [GGUF_BOOL] = { "bool", 1 },
    [GGUF_STRING] = { "string", 0 }, [GGUF_ARRAY] = { "array", 0 },
    [GGUF_U64] = { "u64", 8 }, [GGUF_I64] = { "i64", 8 }, [GGUF_F64] = { "f64", 8 },
};

size_t gguf_type_size(enum gguf_type t)
{
    return types[t].size;
}

const char *gguf_type_name(enum gguf_type t)
{
    return types[t].name;
}

bool kv_add(struct model_files *f, const struct gguf_kv *kv, struct error *err)
{
    size_t len = strlen(kv->key);
    int64_t other;
    if (map_get(&f->kv_index, kv->key, len, &other))
        return fail(err, STATUS_FORMAT, "%s: key %s occurs twice", f->metadata_path, kv->key);
    if (!mem_grow(&f->kv, &f->kv_cap, f->n_kv + 1, sizeof *f->kv, err))
        return false;
    char *key = arena_str(&f->arena, kv->key, len, err);
    if (!key)
        return false;
    f->kv[f->n_kv] = *kv;
    f->kv[f->n_kv].key = key;
    return map_put(&f->kv_index, key, len, (int64_t)f->n_kv++, err);
}

bool kv_add_int(struct model_files *f, const char *key, int64_t v, struct error *err)
{
    return kv_add(f, &(struct gguf_kv){ .key = key, .type = GGUF_U32, .value.u = (uint32_t)v }, err);
}

bool kv_add_float(struct model_files *f, const char *key, double v, struct error *err)
{
    return kv_add(f, &(struct gguf_kv){ .key = key, .type = GGUF_F32, .value.f = (float)v }, err);
}

bool kv_add_bool(struct model_files *f, const char *key, bool v, struct error *err)
{
    return kv_add(f, &(struct gguf_kv){ .key = key, .type = GGUF_BOOL, .value.u = v }, err);
}

bool kv_add_str(struct model_files *f, const char *key, const char *v, struct error *err)
{
    size_t len = strlen(v);
    char *copy = arena_str(&f->arena, v, len, err);
    return copy && kv_add(f, &(struct gguf_kv){ .key = key, .type = GGUF_STRING, .value.s = { copy, len } }, err);
}

bool kv_add_ints(struct model_files *f, const char *key, enum gguf_type element, const int32_t *v, int n, struct error *err)
{
    uint8_t *packed = arena_new(&f->arena, (size_t)n * 4, err);
    if (!packed)
        return false;
    for (int i = 0; i < n; i++)
        if (element == GGUF_BOOL)
            packed[i] = v[i] != 0;
        else
            memcpy(packed + 4 * i, &v[i], 4);
    return kv_add(f, &(struct gguf_kv){ .key = key, .type = GGUF_ARRAY, .element = element, .count = (uint64_t)n, .value.array = packed }, err);
}

const struct gguf_kv *kv_find(const struct model_files *f, const char *key)
{
    int64_t i;
    return map_get(&f->kv_index, key, strlen(key), &i) ? &f->kv[i] : NULL;
}

/* Little-endian integer of the given type; false for floats, strings, arrays and what does not fit int64. */
static bool packed_int(enum gguf_type type, const uint8_t *p, int64_t *out)
{
    uint64_t u = 0;
    size_t size = types[type].size;
    if (!size || type == GGUF_F32 || type == GGUF_F64)
        return false;
    for (size_t i = 0; i < size; i++)
        u |= (uint64_t)p[i] << 8 * i;
    bool is_signed = type == GGUF_I8 || type == GGUF_I16 || type == GGUF_I32 || type == GGUF_I64;
    if (is_signed && size < 8 && u >> (8 * size - 1))
        u |= ~UINT64_C(0) << 8 * size;
    if (!is_signed && u > INT64_MAX)
        return false;
    *out = (int64_t)u;
    return true;
}

bool kv_int_at(const struct gguf_kv *kv, uint64_t i, int64_t *out)
{
    switch (kv->type) {
    case GGUF_ARRAY:
        return i < kv->count && kv->element != GGUF_STRING &&
               packed_int(kv->element, (const uint8_t *)kv->value.array + i * types[kv->element].size, out);
    case GGUF_U8: case GGUF_U16: case GGUF_U32: case GGUF_U64: case GGUF_BOOL:
        *out = (int64_t)kv->value.u;
        return kv->value.u <= INT64_MAX;
    case GGUF_I8: case GGUF_I16: case GGUF_I32: case GGUF_I64:
        *out = kv->value.i;
        return true;
    default:
        return false;
    }
}

bool kv_float(const struct gguf_kv *kv, double *out)
{
    int64_t i;
    if (kv->type == GGUF_F32 || kv->type == GGUF_F64) {
        *out = kv->value.f;
        return true;
    }
    if (kv->type == GGUF_ARRAY || !kv_int_at(kv, 0, &i))
        return false;
    *out = (double)i;
    return true;
}

const char *kv_string(const struct model_files *f, const char *key)
{
    const struct gguf_kv *kv = kv_find(f, key);
    return kv && kv->type == GGUF_STRING ? kv->value.s.data : NULL;
}
