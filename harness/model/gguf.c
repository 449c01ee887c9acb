/* gguf.c - GGUF files in: every count, length and offset is checked against the file before it is used. */
#include "files.h"

#include <stdlib.h>

enum { MAX_ALIGNMENT = 1 << 20, MAX_SPLITS = 1000, MIN_KV_BYTES = 8 + 4 + 1, MIN_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8 };

struct cursor {                 /* a sticky error: after the first failure everything reads as zero */
    const char *path;
    const uint8_t *data;
    size_t size, at;
    bool ok;
    struct error *err;
};

static bool cursor_fail(struct cursor *c, const char *what)
{
    if (c->ok)
        fail(c->err, STATUS_FORMAT, "%s: the file ends within %s (byte %zu of %zu)", c->path, what, c->at, c->size);
    return c->ok = false;
}

static const uint8_t *take(struct cursor *c, uint64_t bytes, const char *what)
{
    if (!c->ok || bytes > c->size - c->at) {
        cursor_fail(c, what);
        return NULL;
    }
    c->at += (size_t)bytes;
    return c->data + c->at - bytes;
}

static uint64_t take_uint(struct cursor *c, size_t size, const char *what)
{
    const uint8_t *p = take(c, size, what);
    uint64_t u = 0;
    for (size_t i = 0; p && i < size; i++)
        u |= (uint64_t)p[i] << 8 * i;
    return u;
}

static struct gguf_string take_string(struct cursor *c, const char *what)
{
    uint64_t len = take_uint(c, 8, what);
    const uint8_t *p = take(c, len, what);
    return (struct gguf_string){ (const char *)p, p ? len : 0 };
}

/* Names and keys become C strings, so they may not hold a NUL. */
static const char *take_name(struct cursor *c, struct model_files *f, const char *what)
{
    struct gguf_string s = take_string(c, what);
    if (!c->ok)
        return NULL;
    if (s.len == 0 || s.len > 65535 || memchr(s.data, 0, s.len)) {
        c->ok = fail(c->err, STATUS_FORMAT, "%s: %s before byte %zu is empty, overlong or holds a NUL", c->path, what, c->at);
        return NULL;
    }
    char *name = arena_str(&f->arena, s.data, s.len, c->err);
    c->ok = name != NULL;
    return name;
}

static enum gguf_type take_type(struct cursor *c, const char *key)
{
    uint64_t t = take_uint(c, 4, key);
    if (c->ok && t > GGUF_F64)
        c->ok = fail(c->err, STATUS_FORMAT, "%s: key %s has value type %llu, known are 0 to 12", c->path, key, (unsigned long long)t);
    return c->ok ? (enum gguf_type)t : GGUF_U8;
}

static void take_strings(struct cursor *c, struct model_files *f, struct gguf_kv *kv)
{
    if (kv->count > (c->size - c->at) / 8) {
        cursor_fail(c, kv->key);
        return;
    }
    struct gguf_string *s = arena_new(&f->arena, (size_t)kv->count * sizeof *s + 1, c->err);
    c->ok = s != NULL;
    for (uint64_t i = 0; c->ok && i < kv->count; i++)
        s[i] = take_string(c, kv->key);
    kv->value.array = s;
}

static void take_array(struct cursor *c, struct model_files *f, struct gguf_kv *kv)
{
    kv->element = take_type(c, kv->key);
    kv->count = take_uint(c, 8, kv->key);
    if (!c->ok)
        return;
    if (kv->element == GGUF_ARRAY) {
        c->ok = fail(c->err, STATUS_UNSUPPORTED, "%s: key %s is an array of arrays", c->path, kv->key);
        return;
    }
    if (kv->element == GGUF_STRING) {
        take_strings(c, f, kv);
        return;
    }
    size_t size = gguf_type_size(kv->element);
    if (kv->count > (c->size - c->at) / size) {
        cursor_fail(c, kv->key);
        return;
    }
    /* Copied, because numbers in the file are not aligned. */
    void *copy = arena_new(&f->arena, (size_t)kv->count * size + 1, c->err);
    c->ok = copy != NULL;
    if (c->ok)
        memcpy(copy, take(c, kv->count * size, kv->key), (size_t)kv->count * size);
    kv->value.array = copy;
}

static void take_scalar(struct cursor *c, struct model_files *f, struct gguf_kv *kv)
{
    size_t size = gguf_type_size(kv->type);
    uint64_t u = take_uint(c, size, kv->key);
    (void)f;
    kv->value.u = u;
    if (kv->type == GGUF_F32) {
        float x;
        memcpy(&x, &(uint32_t){ (uint32_t)u }, sizeof x);
        kv->value.f = x;
    } else if (kv->type == GGUF_F64) {
        double x;
        memcpy(&x, &u, sizeof x);
        kv->value.f = x;
    } else if (kv->type == GGUF_I8 || kv->type == GGUF_I16 || kv->type == GGUF_I32)
        kv->value.i = u >> (8 * size - 1) ? (int64_t)(u | ~UINT64_C(0) << 8 * size) : (int64_t)u;
}

/* What a file says about itself as a part of a model; absent keys keep what the caller put here. */
struct part {
    int64_t alignment, no, count;       /* no counts from 0 */
};

/* Every file has its own alignment and number, also those whose other metadata does not count. */
static void note_part(const struct gguf_kv *kv, struct part *part)
{
    int64_t v;
    if (kv->type == GGUF_ARRAY || !kv_int_at(kv, 0, &v))
        v = 0;
    if (!strcmp(kv->key, "general.alignment"))
        part->alignment = v;
    else if (!strcmp(kv->key, "split.no"))
        part->no = v;
    else if (!strcmp(kv->key, "split.count"))
        part->count = v;
}

static bool read_kv(struct cursor *c, struct model_files *f, bool keep, struct part *part)
{
    struct gguf_kv kv = { .key = take_name(c, f, "a metadata key") };
    if (!c->ok)
        return false;
    kv.type = take_type(c, kv.key);
    if (kv.type == GGUF_ARRAY)
        take_array(c, f, &kv);
    else if (kv.type == GGUF_STRING) {
        struct gguf_string s = take_string(c, kv.key);
        kv.value.s.len = s.len;
        kv.value.s.data = c->ok ? arena_str(&f->arena, s.data, s.len, c->err) : NULL;
        c->ok = c->ok && kv.value.s.data;
    } else
        take_scalar(c, f, &kv);
    if (c->ok)
        note_part(&kv, part);
    if (c->ok && keep)
        c->ok = kv_add(f, &kv, c->err);
    return c->ok;
}

/* Name, dimensions, type and offset of one tensor; data still holds the offset, as a pointer past data. */
struct info {
    struct raw_tensor t;
    uint64_t offset;
};

static bool info_type(struct cursor *c, struct info *i, int type)
{
    const char *refusal = format_refusal(type);
    i->t.type = RAW_GGML;
    if (!format_by_ggml_type(type, &i->t.format))
        return fail(c->err, STATUS_UNSUPPORTED, "%s: tensor %s has type %d, %s", c->path, i->t.name, type,
                    refusal ? refusal : "which is unknown to this program");
    i->t.type_name = formats[i->t.format].name;
    return true;
}

/* Bytes of the tensor, refusing dimensions whose product does not fit. */
static bool info_bytes(struct cursor *c, struct info *i)
{
    const struct format *format = &formats[i->t.format];
    int64_t cols = i->t.dims[i->t.n_dims - 1];
    uint64_t elements = 1;
    for (int d = 0; d < i->t.n_dims; d++) {
        if (i->t.dims[d] <= 0 || (uint64_t)i->t.dims[d] > (UINT64_C(1) << 48) / elements)
            return fail(c->err, STATUS_FORMAT, "%s: tensor %s: dimension %lld makes no sense", c->path, i->t.name, (long long)i->t.dims[d]);
        elements *= (uint64_t)i->t.dims[d];
    }
    if (cols % format->block)
        return fail(c->err, STATUS_FORMAT, "%s: tensor %s has rows of %lld, not a multiple of %s's block of %d", c->path, i->t.name,
                    (long long)cols, format->name, format->block);
    i->t.bytes = elements / (uint64_t)format->block * (uint64_t)format->block_bytes;
    return true;
}

static bool read_info(struct cursor *c, struct model_files *f, struct info *i)
{
    *i = (struct info){ .t = { .name = take_name(c, f, "a tensor name"), .file = c->path } };
    uint64_t n_dims = take_uint(c, 4, "a tensor description");
    if (c->ok && (n_dims < 1 || n_dims > 4))
        return c->ok = fail(c->err, STATUS_FORMAT, "%s: tensor %s has %llu dimensions", c->path, i->t.name, (unsigned long long)n_dims);
    i->t.n_dims = (int)n_dims;
    for (int d = i->t.n_dims - 1; c->ok && d >= 0; d--)
        i->t.dims[d] = (int64_t)take_uint(c, 8, i->t.name);
    uint64_t type = take_uint(c, 4, "a tensor description");
    i->offset = take_uint(c, 8, "a tensor description");
    if (c->ok)
        c->ok = info_type(c, i, type < 1000 ? (int)type : 1000) && info_bytes(c, i);
    return c->ok;
}

static bool read_header(struct cursor *c, uint64_t *n_tensors, uint64_t *n_kv)
{
    const uint8_t *magic = take(c, 4, "the magic");
    if (!magic || memcmp(magic, "GGUF", 4))
        return fail(c->err, STATUS_FORMAT, "%s: not a GGUF file (no GGUF at the start)", c->path);
    uint64_t version = take_uint(c, 4, "the header");
    if (c->ok && (version & 0xffff) == 0)
        return fail(c->err, STATUS_UNSUPPORTED, "%s: a big-endian GGUF; only little-endian files are read", c->path);
    if (c->ok && version != 2 && version != 3)
        return fail(c->err, STATUS_UNSUPPORTED, "%s: GGUF version %llu, read are 2 and 3 (convert the original model again)", c->path, (unsigned long long)version);
    *n_tensors = take_uint(c, 8, "the header");
    *n_kv = take_uint(c, 8, "the header");
    if (c->ok && (*n_kv > (c->size - c->at) / MIN_KV_BYTES || *n_tensors > (c->size - c->at) / MIN_TENSOR_BYTES))
        return fail(c->err, STATUS_FORMAT, "%s: says it has %llu tensors and %llu keys, more than its %zu bytes can hold", c->path,
                    (unsigned long long)*n_tensors, (unsigned long long)*n_kv, c->size);
    return c->ok;
}

static bool check_part(const struct cursor *c, const struct part *found, int64_t no, int64_t count)
{
    if (found->alignment < 8 || found->alignment > MAX_ALIGNMENT || (found->alignment & (found->alignment - 1)))
        return fail(c->err, STATUS_FORMAT, "%s: general.alignment is %lld, expected a power of two from 8", c->path, (long long)found->alignment);
    if (no > 0 && (found->no != no || found->count != count))
        return fail(c->err, STATUS_FORMAT, "%s: says it is part %lld of %lld, by its name it is part %lld of %lld", c->path, (long long)found->no + 1,
                    (long long)found->count, (long long)no + 1, (long long)count);
    return true;
}

static bool place_tensor(struct cursor *c, struct model_files *f, struct info *i, uint64_t data, uint64_t alignment)
{
    if (i->offset % alignment)
        return fail(c->err, STATUS_FORMAT, "%s: tensor %s starts at offset %llu, not a multiple of %llu", c->path, i->t.name,
                    (unsigned long long)i->offset, (unsigned long long)alignment);
    if (data > c->size || i->offset > c->size - data || i->t.bytes > c->size - data - i->offset)
        return fail(c->err, STATUS_FORMAT, "%s: tensor %s (%llu bytes at offset %llu of the data) reaches past the end of the file (%zu bytes)",
                    c->path, i->t.name, (unsigned long long)i->t.bytes, (unsigned long long)i->offset, c->size);
    i->t.data = c->data + data + i->offset;
    return files_add_raw(f, &i->t, c->err);
}

/* File number no, from 0, of the count files of a model; metadata is kept from the first. */
static bool read_one(struct model_files *f, const char *path, int64_t no, int64_t count, struct error *err)
{
    struct mapping *map;
    struct part part = { .alignment = 32, .no = no, .count = count };
    uint64_t n_tensors = 0, n_kv = 0;
    if (!files_add_map(f, path, &map, err))
        return false;
    struct cursor c = { f->paths[f->n_maps - 1], map->data, map->size, 0, true, err };
    if (!read_header(&c, &n_tensors, &n_kv))
        return false;
    for (uint64_t i = 0; i < n_kv; i++)
        if (!read_kv(&c, f, no == 0, &part))
            return false;
    struct info *infos = mem_new((size_t)n_tensors + 1, sizeof *infos, err);
    bool ok = infos && check_part(&c, &part, no, count);
    uint64_t alignment = (uint64_t)part.alignment;
    for (uint64_t i = 0; ok && i < n_tensors; i++)
        ok = read_info(&c, f, &infos[i]);
    uint64_t data = ok ? (c.at + alignment - 1) / alignment * alignment : 0;
    for (uint64_t i = 0; ok && i < n_tensors; i++)
        ok = place_tensor(&c, f, &infos[i], data, alignment);
    free(infos);
    return ok;
}

static int64_t kv_number(const struct model_files *f, const char *key, int64_t absent)
{
    const struct gguf_kv *kv = kv_find(f, key);
    int64_t v;
    return kv && kv_int_at(kv, 0, &v) ? v : absent;
}

/* "name-00001-of-00003.gguf": read the others too.  Each must exist and the number of tensors must be right. */
static bool read_splits(struct model_files *f, const char *path, int64_t count, struct error *err)
{
    char tail[32];
    snprintf(tail, sizeof tail, "-00001-of-%05d.gguf", (int)count);
    int64_t no = kv_number(f, "split.no", 0), total = kv_number(f, "split.tensors.count", -1);
    if (no != 0 || !str_ends(path, tail))
        return fail(err, STATUS_INPUT, "%s: part %lld of a model in %lld files; open the first, whose name ends in %s", path,
                    (long long)no + 1, (long long)count, tail);
    struct text name = { 0 };
    bool ok = true;
    for (int i = 2; ok && i <= count; i++) {
        text_clear(&name);
        text_add(&name, path, strlen(path) - strlen(tail));
        text_printf(&name, "-%05d-of-%05d.gguf", i, (int)count);
        ok = text_ok(&name, err);
        if (ok && !file_exists(text_str(&name)))
            ok = fail(err, STATUS_INPUT, "%s: part %d of the %lld files of the model is not there", text_str(&name), i, (long long)count);
        ok = ok && read_one(f, text_str(&name), i - 1, count, err);
    }
    text_free(&name);
    if (ok && total >= 0 && (uint64_t)total != f->n_raw)
        return fail(err, STATUS_FORMAT, "%s: the %lld files hold %zu tensors, split.tensors.count says %lld", path, (long long)count, f->n_raw,
                    (long long)total);
    return ok;
}

bool gguf_read(struct model_files *f, const char *path, struct error *err)
{
    f->metadata_path = arena_str(&f->arena, path, strlen(path), err);
    if (!f->metadata_path || !read_one(f, path, 0, 1, err))
        return false;
    int64_t count = kv_number(f, "split.count", 1);
    if (count < 0 || count > MAX_SPLITS)
        return fail(err, STATUS_FORMAT, "%s: split.count is %lld", path, (long long)count);
    return (count <= 1 || read_splits(f, path, count, err)) && files_check_overlap(f, err);
}
