/* safetensors.c - .safetensors files in, alone or as the shards of an index. */
#include "files.h"

#include <stdlib.h>

#define MAX_HEADER (UINT64_C(256) << 20)
enum { MAX_SHARDS = 10000 };

static const struct {
    const char *name;
    enum raw_type type;
    int bytes;
} dtypes[] = {
    { "F32", RAW_F32, 4 }, { "F16", RAW_F16, 2 }, { "BF16", RAW_BF16, 2 }, { "I8", RAW_I8, 1 }, { "U8", RAW_U8, 1 }, { "I16", RAW_I16, 2 },
    { "I32", RAW_I32, 4 }, { "U32", RAW_U32, 4 }, { "I64", RAW_I64, 8 }, { "BOOL", RAW_OTHER, 1 }, { "F8_E4M3", RAW_F8, 1 },
    { "F8_E5M2", RAW_OTHER, 1 }, { "F64", RAW_OTHER, 8 }, { "U16", RAW_OTHER, 2 }, { "U64", RAW_OTHER, 8 }, { "F8_E8M0", RAW_OTHER, 1 },
};

/* A JSON number that is a whole number in [0, 2^53]. */
static bool whole(const cJSON *n, uint64_t *out)
{
    if (!cJSON_IsNumber(n) || !(n->valuedouble >= 0 && n->valuedouble <= 0x1p53) || n->valuedouble != (double)(uint64_t)n->valuedouble)
        return false;
    *out = (uint64_t)n->valuedouble;
    return true;
}

static bool read_dtype(const cJSON *o, struct raw_tensor *t, uint64_t *bytes, struct error *err)
{
    const char *name;
    if (!json_str(o, "dtype", &name, t->name, err))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(dtypes); i++)
        if (!strcmp(dtypes[i].name, name)) {
            t->type = dtypes[i].type;
            t->type_name = dtypes[i].name;
            *bytes = (uint64_t)dtypes[i].bytes;
            return true;
        }
    return fail(err, STATUS_UNSUPPORTED, "tensor %s has dtype %s", t->name, name);
}

/* Dimensions and what they say about the size; a scalar has shape []. */
static bool read_shape(const cJSON *o, struct raw_tensor *t, uint64_t *bytes, struct error *err)
{
    const cJSON *shape, *d;
    if (!json_array(o, "shape", &shape, t->name, err))
        return false;
    cJSON_ArrayForEach(d, shape) {
        uint64_t v;
        if (t->n_dims == 4)
            return fail(err, STATUS_UNSUPPORTED, "tensor %s has more than 4 dimensions", t->name);
        if (!whole(d, &v) || v == 0 || v > (UINT64_C(1) << 48) / *bytes)
            return fail(err, STATUS_FORMAT, "tensor %s: dimension %d of its shape is no usable number", t->name, t->n_dims);
        t->dims[t->n_dims++] = (int64_t)v;
        *bytes *= v;
    }
    return true;
}

static bool read_entry(struct model_files *f, const cJSON *o, const char *file, const uint8_t *data, uint64_t size, struct error *err)
{
    struct raw_tensor t = { .file = file };
    const cJSON *offsets;
    uint64_t begin, end, bytes = 0;
    t.name = arena_str(&f->arena, o->string, strlen(o->string), err);
    if (!t.name)
        return false;
    if (!cJSON_IsObject(o))
        return fail(err, STATUS_FORMAT, "tensor %s is not described by an object", t.name);
    if (!read_dtype(o, &t, &bytes, err) || !read_shape(o, &t, &bytes, err) || !json_array(o, "data_offsets", &offsets, t.name, err))
        return false;
    if (cJSON_GetArraySize(offsets) != 2 || !whole(cJSON_GetArrayItem(offsets, 0), &begin) || !whole(cJSON_GetArrayItem(offsets, 1), &end) ||
        begin > end || end > size)
        return fail(err, STATUS_FORMAT, "tensor %s: data_offsets are no range within the %llu bytes of data", t.name, (unsigned long long)size);
    if (end - begin != bytes)
        return fail(err, STATUS_FORMAT, "tensor %s: data_offsets span %llu bytes, shape and dtype %s need %llu", t.name,
                    (unsigned long long)(end - begin), t.type_name, (unsigned long long)bytes);
    t.data = data + begin;
    t.bytes = bytes;
    return files_add_raw(f, &t, err);
}

/* Tensors of vision and audio towers and of draft heads are listed by nobody. */
static bool skipped(const char *name)
{
    static const char *const parts[] = { "vision_tower.", "audio_tower.", "multi_modal_projector.", "embed_vision.", "embed_audio.", "vision_embedder.",
                                         "vision_model.", "audio_model." };
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        const char *at = strstr(name, parts[i]);
        if (at && (at == name || at[-1] == '.'))
            return true;
    }
    return !strcmp(name, "__metadata__");
}

/* torchao keeps its layout in the header's string map; packed.c looks there. */
static bool keep_metadata(struct model_files *f, const cJSON *header, struct error *err)
{
    const cJSON *meta = json_get(header, "__metadata__"), *e;
    if (!meta || !json_get(meta, "tensor_names"))
        return true;
    cJSON_ArrayForEach(e, meta)
        if (cJSON_IsString(e) && e->string && strlen(e->string) < 200) {
            char key[256];
            snprintf(key, sizeof key, "safetensors.%s", e->string);
            if (!kv_find(f, key) && !kv_add_str(f, key, e->valuestring, err))
                return false;
        }
    return true;
}

static bool read_header(struct model_files *f, const char *file, const struct mapping *map, struct error *err)
{
    uint64_t len = 0;
    for (int i = 0; i < 8 && map->size >= 8; i++)
        len |= (uint64_t)map->data[i] << 8 * i;
    if (map->size < 8 || len > map->size - 8 || len > MAX_HEADER)
        return fail(err, STATUS_FORMAT, "%s: not a safetensors file: the header's length %llu does not fit its %zu bytes", file,
                    (unsigned long long)len, map->size);
    cJSON *header = json_parse((const char *)map->data + 8, (size_t)len, file, err), *o;
    bool ok = header != NULL;
    if (ok && !cJSON_IsObject(header))
        ok = fail(err, STATUS_FORMAT, "%s: the header is no JSON object", file);
    if (ok)
        ok = keep_metadata(f, header, err);
    cJSON_ArrayForEach(o, header)
        if (ok && !skipped(o->string) && !read_entry(f, o, file, map->data + 8 + len, map->size - 8 - len, err))
            ok = fail_in(err, "%s", file);
    cJSON_Delete(header);
    return ok;
}

static bool read_file(struct model_files *f, const char *path, struct error *err)
{
    struct mapping *map;
    return files_add_map(f, path, &map, err) && read_header(f, f->paths[f->n_maps - 1], map, err);
}

/* A shard's name must lie in the folder itself. */
static bool read_shard(struct model_files *f, const char *dir, const char *name, const char *index, struct error *err)
{
    struct text path = { 0 };
    if (!*name || strchr(name, '/') || !str_ends(name, ".safetensors"))
        return fail(err, STATUS_FORMAT, "%s: shard \"%s\" is not the name of a .safetensors file in the same folder", index, name);
    path_join(&path, dir, name);
    bool ok = text_ok(&path, err) && read_file(f, text_str(&path), err);
    text_free(&path);
    return ok;
}

static bool read_shards(struct model_files *f, const char *dir, const char *index, const cJSON *weights, struct error *err)
{
    struct map seen = { 0 };
    const cJSON *w;
    bool ok = true;
    int64_t turn;
    cJSON_ArrayForEach(w, weights) {
        if (!cJSON_IsString(w))
            ok = fail(err, STATUS_FORMAT, "%s: weight_map: %s has no file name", index, w->string);
        else if (!map_get(&seen, w->valuestring, strlen(w->valuestring), &turn))
            ok = seen.count < MAX_SHARDS ? map_put(&seen, w->valuestring, strlen(w->valuestring), 1, err) && read_shard(f, dir, w->valuestring, index, err)
                                         : fail(err, STATUS_FORMAT, "%s: more than %d shards", index, MAX_SHARDS);
        if (!ok)
            break;
    }
    map_free(&seen);
    cJSON_ArrayForEach(w, weights) {
        const struct raw_tensor *t = ok ? files_raw(f, w->string) : NULL;
        if (ok && !skipped(w->string) && (!t || strcmp(path_base(t->file), w->valuestring)))
            ok = fail(err, STATUS_FORMAT, "%s: tensor %s should be in %s and is %s", index, w->string, w->valuestring, t ? "elsewhere" : "missing");
    }
    return ok;
}

static bool read_index(struct model_files *f, const char *dir, const char *index, struct error *err)
{
    const cJSON *weights;
    cJSON *json = json_parse_file(index, MAX_HEADER, err);
    bool ok = json && json_object(json, "weight_map", &weights, index, err) && read_shards(f, dir, index, weights, err);
    cJSON_Delete(json);
    return ok;
}

bool safetensors_read(struct model_files *f, const char *path, struct error *err)
{
    struct text single = { 0 }, index = { 0 };
    path_join(&single, path, "model.safetensors");
    path_join(&index, path, "model.safetensors.index.json");
    bool ok = text_ok(&single, err) && text_ok(&index, err);
    if (ok && !dir_exists(path))
        ok = read_file(f, path, err);
    else if (ok && file_exists(text_str(&index)))
        ok = read_index(f, path, text_str(&index), err);
    else if (ok && file_exists(text_str(&single)))
        ok = read_file(f, text_str(&single), err);
    else if (ok)
        ok = foreign_folder(path, "model.safetensors or model.safetensors.index.json", err);
    text_free(&single);
    text_free(&index);
    return ok && files_check_overlap(f, err);
}
