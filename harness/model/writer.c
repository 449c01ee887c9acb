#include "model/writer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_ALIGNMENT = 32 };

/* Data of declared pieces, in order: how far we are, and padding between them. */
struct stream {
    struct file_writer file;
    char **names;               /* for messages */
    uint64_t *bytes;            /* of each piece */
    int n, current;
    uint64_t done;              /* of the current piece */
    uint64_t alignment;
    size_t head;                /* bytes before the data */
};

static void stream_free(struct stream *s)
{
    file_writer_discard(&s->file);
    for (int i = 0; s->names && i < s->n; i++)
        free(s->names[i]);
    free(s->names);
    free(s->bytes);
}

static bool stream_new(struct stream *s, int n, uint64_t alignment, struct error *err)
{
    s->n = n;
    s->alignment = alignment;
    s->names = mem_new((size_t)n + 1, sizeof *s->names, err);
    s->bytes = s->names ? mem_new((size_t)n + 1, sizeof *s->bytes, err) : NULL;
    return s->bytes != NULL;
}

static uint64_t padding(uint64_t bytes, uint64_t alignment)
{
    return (alignment - bytes % alignment) % alignment;
}

static bool add_zeros(struct file_writer *f, uint64_t n, struct error *err)
{
    static const uint8_t zeros[64];
    for (uint64_t part; n; n -= part) {
        part = n < sizeof zeros ? n : sizeof zeros;
        if (!file_writer_add(f, zeros, part, err))
            return false;
    }
    return true;
}

static bool stream_data(struct stream *s, const void *data, uint64_t bytes, struct error *err)
{
    while (s->current < s->n && s->bytes[s->current] == 0 && bytes)
        s->current++;
    if (s->current >= s->n)
        return bytes == 0 || fail(err, STATUS_FORMAT, "%s: %llu bytes after the last declared tensor", s->file.path,
                                  (unsigned long long)bytes);
    if (bytes > s->bytes[s->current] - s->done)
        return fail(err, STATUS_FORMAT, "%s: tensor %s was declared with %llu bytes, got more", s->file.path,
                    s->names[s->current], (unsigned long long)s->bytes[s->current]);
    if (!file_writer_add(&s->file, data, bytes, err))
        return false;
    s->done += bytes;
    if (s->done < s->bytes[s->current])
        return true;
    s->done = 0;
    return add_zeros(&s->file, padding(s->bytes[s->current++], s->alignment), err);
}

static bool stream_commit(struct stream *s, struct error *err)
{
    while (s->current < s->n && s->bytes[s->current] == 0)
        s->current++;
    if (s->current < s->n)
        return fail(err, STATUS_FORMAT, "%s: tensor %s got %llu of its %llu bytes", s->file.path, s->names[s->current],
                    (unsigned long long)s->done, (unsigned long long)s->bytes[s->current]);
    return file_writer_commit(&s->file, err);
}

/* Names must be unique, or a reader would silently take one of the two. */
static bool check_names(char *const *names, int n, const char *path, struct error *err)
{
    struct map seen = { 0 };
    bool ok = true;
    for (int i = 0; ok && i < n; i++) {
        int64_t other;
        if (map_get(&seen, names[i], strlen(names[i]), &other))
            ok = fail(err, STATUS_FORMAT, "%s: two tensors are called %s", path, names[i]);
        else
            ok = map_put(&seen, names[i], strlen(names[i]), i, err);
    }
    map_free(&seen);
    return ok;
}

/* ---- GGUF ---- */

static void put_number(struct text *t, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        text_putc(t, (char)(v >> 8 * i & 255));
}
static void put_string(struct text *t, const char *s, uint64_t len)
{
    put_number(t, len, 8);
    text_add(t, s, (size_t)len);
}

/* Bytes of a scalar of each type on disk; 0: not a scalar of fixed width. */
static const int type_bytes[] = {
    [GGUF_U8] = 1,  [GGUF_I8] = 1,  [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4, [GGUF_F32] = 4,
    [GGUF_BOOL] = 1, [GGUF_STRING] = 0, [GGUF_ARRAY] = 0, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
};

static void put_scalar(struct text *t, const struct gguf_kv *kv)
{
    if (kv->type == GGUF_F32) {
        float f = (float)kv->value.f;
        uint32_t bits;
        memcpy(&bits, &f, sizeof bits);
        put_number(t, bits, 4);
    } else if (kv->type == GGUF_F64) {
        uint64_t bits;
        memcpy(&bits, &kv->value.f, sizeof bits);
        put_number(t, bits, 8);
    } else {
        put_number(t, kv->value.u, type_bytes[kv->type]);       /* two's complement: i and u share the low bytes */
    }
}

static bool put_array(struct text *t, const struct gguf_kv *kv, struct error *err)
{
    put_number(t, kv->element, 4);
    put_number(t, kv->count, 8);
    if (kv->element == GGUF_STRING) {
        const struct gguf_string *s = kv->value.array;
        for (uint64_t i = 0; i < kv->count; i++)
            put_string(t, s[i].data, s[i].len);
        return true;
    }
    if ((unsigned)kv->element >= ARRAY_LEN(type_bytes) || !type_bytes[kv->element])
        return fail(err, STATUS_UNSUPPORTED, "metadata %s: arrays of type %d are not written", kv->key, kv->element);
    text_add(t, kv->value.array, (size_t)(kv->count * (uint64_t)type_bytes[kv->element]));
    return true;
}

static bool put_kv(struct text *t, const struct gguf_kv *kv, struct error *err)
{
    if ((unsigned)kv->type >= ARRAY_LEN(type_bytes))
        return fail(err, STATUS_UNSUPPORTED, "metadata %s: unknown type %d", kv->key, kv->type);
    put_string(t, kv->key, strlen(kv->key));
    put_number(t, kv->type, 4);
    if (kv->type == GGUF_ARRAY)
        return put_array(t, kv, err);
    if (kv->type == GGUF_STRING)
        put_string(t, kv->value.s.data, kv->value.s.len);
    else
        put_scalar(t, kv);
    return true;
}

static bool tensor_size(const struct writer_tensor *t, uint64_t *bytes, struct error *err)
{
    if (t->n_dims < 1 || t->n_dims > 4)
        return fail(err, STATUS_FORMAT, "tensor %s has %d dimensions, GGUF allows 1 to 4", t->name, t->n_dims);
    const struct format *f = &formats[t->format];
    if (f->ggml_type < 0)
        return fail(err, STATUS_UNSUPPORTED, "tensor %s: GGUF has no type for %s", t->name, f->name);
    if (t->dims[0] < 1 || t->dims[0] % f->block)
        return fail(err, STATUS_FORMAT, "tensor %s: rows of %lld do not divide into %s blocks of %d", t->name,
                    (long long)t->dims[0], f->name, f->block);
    *bytes = (uint64_t)format_row_bytes(t->format, t->dims[0]);
    for (int d = 1; d < t->n_dims; d++)
        if (t->dims[d] < 1 || __builtin_mul_overflow(*bytes, (uint64_t)t->dims[d], bytes))
            return fail(err, STATUS_FORMAT, "tensor %s: dimension %d is %lld", t->name, d, (long long)t->dims[d]);
    return true;
}

struct gguf_writer {
    struct stream s;
    struct writer_tensor *tensors;
};

static uint64_t alignment_of(const struct gguf_kv *kv, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(kv[i].key, "general.alignment") == 0 && kv[i].type == GGUF_U32)
            return kv[i].value.u;
    return DEFAULT_ALIGNMENT;
}

static bool gguf_header(struct text *t, struct stream *s, const struct gguf_kv *kv, int n_kv,
                        const struct writer_tensor *tensors, struct error *err)
{
    text_puts(t, "GGUF");
    put_number(t, 3, 4);
    put_number(t, (uint64_t)s->n, 8);
    put_number(t, (uint64_t)n_kv, 8);
    for (int i = 0; i < n_kv; i++)
        if (!put_kv(t, &kv[i], err))
            return false;
    uint64_t offset = 0;
    for (int i = 0; i < s->n; i++) {
        const struct writer_tensor *w = &tensors[i];
        put_string(t, w->name, strlen(w->name));
        put_number(t, (uint64_t)w->n_dims, 4);
        for (int d = 0; d < w->n_dims; d++)
            put_number(t, (uint64_t)w->dims[d], 8);
        put_number(t, (uint64_t)formats[w->format].ggml_type, 4);
        put_number(t, offset, 8);
        offset += s->bytes[i] + padding(s->bytes[i], s->alignment);
    }
    while (t->len % s->alignment)
        text_putc(t, 0);
    return text_ok(t, err);
}

/* Names and sizes of the tensors, kept for a later header. */
static bool gguf_declare(struct gguf_writer *w, const struct writer_tensor *tensors, struct error *err)
{
    w->tensors = mem_new((size_t)w->s.n + 1, sizeof *w->tensors, err);
    for (int i = 0; w->tensors && i < w->s.n; i++) {
        w->tensors[i] = tensors[i];
        if (!tensor_size(&tensors[i], &w->s.bytes[i], err) || !(w->s.names[i] = str_dup(tensors[i].name, err)))
            return false;
        w->tensors[i].name = w->s.names[i];
    }
    return w->tensors != NULL;
}

bool gguf_writer_open(struct gguf_writer **out, const char *path, const struct gguf_kv *kv, int n_kv,
                      const struct writer_tensor *tensors, int n_tensors, struct error *err)
{
    *out = NULL;
    struct gguf_writer *w = mem_new(1, sizeof *w, err);
    if (!w)
        return false;
    struct text header = { 0 };
    uint64_t alignment = alignment_of(kv, n_kv);
    bool ok = (alignment && alignment % 8 == 0) ||
              fail(err, STATUS_FORMAT, "%s: general.alignment %llu is not a multiple of 8", path,
                   (unsigned long long)alignment);
    ok = ok && stream_new(&w->s, n_tensors, alignment, err) && gguf_declare(w, tensors, err) &&
         gguf_header(&header, &w->s, kv, n_kv, w->tensors, err) && check_names(w->s.names, n_tensors, path, err) &&
         file_writer_open(&w->s.file, path, err) && file_writer_add(&w->s.file, header.data, header.len, err);
    w->s.head = header.len;
    text_free(&header);
    if (ok)
        *out = w;
    else
        gguf_writer_discard(w);
    return ok;
}

/* The file's head is header from now on. */
static bool stream_head(struct stream *s, const struct text *header, struct error *err)
{
    bool ok = file_writer_head(&s->file, s->head, header->data, header->len, err);
    s->head = header->len;
    return ok;
}

bool gguf_writer_metadata(struct gguf_writer *w, const struct gguf_kv *kv, int n_kv, struct error *err)
{
    struct text header = { 0 };
    bool ok = (alignment_of(kv, n_kv) == w->s.alignment || fail(err, STATUS_FORMAT, "%s: general.alignment changes", w->s.file.path)) &&
              gguf_header(&header, &w->s, kv, n_kv, w->tensors, err) && stream_head(&w->s, &header, err);
    text_free(&header);
    return ok;
}

bool gguf_writer_data(struct gguf_writer *w, const void *data, uint64_t bytes, struct error *err)
{
    return stream_data(&w->s, data, bytes, err);
}

bool gguf_writer_commit(struct gguf_writer *w, struct error *err)
{
    bool ok = stream_commit(&w->s, err);
    gguf_writer_discard(w);
    return ok;
}

void gguf_writer_discard(struct gguf_writer *w)
{
    if (!w)
        return;
    stream_free(&w->s);
    free(w->tensors);
    free(w);
}

/* ---- safetensors ---- */

struct safetensors_writer {
    struct stream s;
    struct safetensors_entry *entries;
};

static const struct {
    const char *name;
    int bytes;
} dtypes[] = { { "BF16", 2 }, { "F16", 2 }, { "F32", 4 }, { "F64", 8 }, { "I8", 1 },  { "U8", 1 },
               { "I16", 2 },  { "I32", 4 }, { "U32", 4 }, { "I64", 8 }, { "BOOL", 1 }, { "F8_E4M3", 1 } };

static int dtype_bytes(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(dtypes); i++)
        if (strcmp(dtypes[i].name, name) == 0)
            return dtypes[i].bytes;
    return 0;
}

static bool entry_size(const struct safetensors_entry *e, uint64_t *bytes, struct error *err)
{
    *bytes = (uint64_t)dtype_bytes(e->dtype);
    if (!*bytes)
        return fail(err, STATUS_UNSUPPORTED, "tensor %s: dtype %s is not one we write", e->name, e->dtype);
    if (e->n_dims < 0 || e->n_dims > 4)
        return fail(err, STATUS_FORMAT, "tensor %s has %d dimensions, expected at most 4", e->name, e->n_dims);
    for (int d = 0; d < e->n_dims; d++)
        if (e->dims[d] < 0 || __builtin_mul_overflow(*bytes, (uint64_t)e->dims[d], bytes))
            return fail(err, STATUS_FORMAT, "tensor %s: dimension %d is %lld", e->name, d, (long long)e->dims[d]);
    return true;
}

uint64_t safetensors_entry_bytes(const struct safetensors_entry *e)
{
    uint64_t bytes;
    struct error ignored;
    return entry_size(e, &bytes, &ignored) ? bytes : 0;
}

static void put_metadata(struct text *t, const char *const *metadata)
{
    text_puts(t, "\"__metadata__\":{");
    for (int i = 0; metadata[i]; i += 2) {
        if (i)
            text_putc(t, ',');
        json_quote(t, metadata[i], strlen(metadata[i]));
        text_putc(t, ':');
        json_quote(t, metadata[i + 1], strlen(metadata[i + 1]));
    }
    text_puts(t, "}");
}

/* With the eight bytes of its own length before it. */
static bool safetensors_header(struct text *out, const struct safetensors_writer *w, const char *const *metadata, struct error *err)
{
    struct text t = { 0 };
    text_putc(&t, '{');
    if (metadata && metadata[0])
        put_metadata(&t, metadata);
    uint64_t offset = 0;
    for (int i = 0; i < w->s.n; i++) {
        const struct safetensors_entry *e = &w->entries[i];
        if (t.len > 1)
            text_putc(&t, ',');
        json_quote(&t, e->name, strlen(e->name));
        text_printf(&t, ":{\"dtype\":\"%s\",\"shape\":[", e->dtype);
        for (int d = 0; d < e->n_dims; d++)
            text_printf(&t, d ? ",%lld" : "%lld", (long long)e->dims[d]);
        text_printf(&t, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)offset,
                    (unsigned long long)(offset + w->s.bytes[i]));
        offset += w->s.bytes[i];
    }
    text_putc(&t, '}');
    while (t.len % 8)           /* the header may end in blanks; data then starts aligned */
        text_putc(&t, ' ');
    put_number(out, t.len, 8);
    text_add(out, t.data, t.len);
    bool ok = text_ok(&t, err) && text_ok(out, err);
    text_free(&t);
    return ok;
}

static bool safetensors_declare(struct safetensors_writer *w, const struct safetensors_entry *e, struct error *err)
{
    w->entries = mem_new((size_t)w->s.n + 1, sizeof *w->entries, err);
    for (int i = 0; w->entries && i < w->s.n; i++) {
        w->entries[i] = e[i];
        if (!entry_size(&e[i], &w->s.bytes[i], err) || !(w->s.names[i] = str_dup(e[i].name, err)))
            return false;
        w->entries[i].name = w->s.names[i];
    }
    return w->entries != NULL;
}

bool safetensors_writer_open(struct safetensors_writer **out, const char *path, const struct safetensors_entry *e,
                             int n, const char *const *metadata, struct error *err)
{
    *out = NULL;
    struct safetensors_writer *w = mem_new(1, sizeof *w, err);
    if (!w)
        return false;
    struct text header = { 0 };
    bool ok = stream_new(&w->s, n, 1, err) && safetensors_declare(w, e, err) && safetensors_header(&header, w, metadata, err) &&
              check_names(w->s.names, n, path, err) && file_writer_open(&w->s.file, path, err) &&
              file_writer_add(&w->s.file, header.data, header.len, err);
    w->s.head = header.len;
    text_free(&header);
    if (ok)
        *out = w;
    else
        safetensors_writer_discard(w);
    return ok;
}

bool safetensors_writer_metadata(struct safetensors_writer *w, const char *const *metadata, struct error *err)
{
    struct text header = { 0 };
    bool ok = safetensors_header(&header, w, metadata, err) && stream_head(&w->s, &header, err);
    text_free(&header);
    return ok;
}

bool safetensors_writer_data(struct safetensors_writer *w, const void *data, uint64_t bytes, struct error *err)
{
    return stream_data(&w->s, data, bytes, err);
}

bool safetensors_writer_commit(struct safetensors_writer *w, struct error *err)
{
    bool ok = stream_commit(&w->s, err);
    safetensors_writer_discard(w);
    return ok;
}

void safetensors_writer_discard(struct safetensors_writer *w)
{
    if (!w)
        return;
    stream_free(&w->s);
    free(w->entries);
    free(w);
}
