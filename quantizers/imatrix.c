#include "imatrix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate.h"

/* ---- the list ---- */

bool imatrix_new(struct imatrix **out, const char *source, struct error *err)
{
    struct imatrix *im = mem_new(1, sizeof *im, err);
    *out = im;
    if (im && (im->source = str_dup(source, err)))
        return true;
    imatrix_free(im);
    *out = NULL;
    return false;
}

void imatrix_free(struct imatrix *im)
{
    if (!im)
        return;
    for (int i = 0; i < im->n; i++) {
        free(im->entries[i].name);
        free(im->entries[i].sum2);
        free(im->entries[i].counts);
        free(im->entries[i].mean);
    }
    free(im->entries);
    free(im->source);
    free(im);
}

static struct imatrix_entry *find(const struct imatrix *im, const char *name)
{
    for (int i = 0; i < im->n; i++)
        if (strcmp(im->entries[i].name, name) == 0)
            return &im->entries[i];
    return NULL;
}

struct imatrix_entry *imatrix_entry(struct imatrix *im, const char *name, int64_t cols, int64_t mats, struct error *err)
{
    struct imatrix_entry *e = find(im, name);
    if (e)
        return e->cols == cols && e->mats == mats ? e : NULL;
    if (!mem_grow(&im->entries, &im->cap, (size_t)im->n + 1, sizeof *im->entries, err))
        return NULL;
    e = &im->entries[im->n++];
    *e = (struct imatrix_entry){ .name = str_dup(name, err), .cols = cols, .mats = mats };
    e->sum2 = mem_new((size_t)(cols * mats), sizeof(float), err);
    e->counts = mem_new((size_t)mats, sizeof(float), err);
    e->mean = mem_new((size_t)(cols * mats), sizeof(float), err);
    return e->name && e->sum2 && e->counts && e->mean ? e : NULL;
}

bool imatrix_finish(struct imatrix *im, struct error *err)
{
    for (int i = 0; i < im->n; i++) {
        struct imatrix_entry *e = &im->entries[i];
        for (int64_t m = 0; m < e->mats; m++)
            for (int64_t c = 0; c < e->cols; c++) {
                float *mean = &e->mean[m * e->cols + c];
                *mean = e->counts[m] > 0 ? e->sum2[m * e->cols + c] / e->counts[m] : 1;
                if (!isfinite(*mean) || *mean < 0)
                    return fail(err, STATUS_INPUT, "%s: importance of %s, column %lld, is %g; expected finite and not negative",
                                im->source, e->name, (long long)c, (double)*mean);
            }
    }
    return true;
}

const float *imatrix_importance(const struct imatrix *im, const struct tensor *t)
{
    struct imatrix_entry *e = im ? find(im, t->name) : NULL;
    if (!e || e->cols != t->cols || e->mats != t->mats)
        return NULL;
    return e->mean;
}

/* ---- reading: the parts of GGUF that an imatrix file uses ---- */

struct cursor {
    const uint8_t *p, *end;
    const char *path;
    bool bad;
};

static const uint8_t *take(struct cursor *c, uint64_t n)
{
    if (c->bad || n > (uint64_t)(c->end - c->p)) {
        c->bad = true;
        return NULL;
    }
    c->p += n;
    return c->p - n;
}

static uint64_t number(struct cursor *c, int bytes)
{
    const uint8_t *p = take(c, (uint64_t)bytes);
    uint64_t v = 0;
    for (int i = 0; p && i < bytes; i++)
        v |= (uint64_t)p[i] << 8 * i;
    return v;
}

static const char *string(struct cursor *c, uint64_t *len)
{
    *len = number(c, 8);
    return (const char *)take(c, *len);
}

static bool skip_value(struct cursor *c, uint64_t type)
{
    static const uint8_t bytes[13] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    uint64_t len;
    if (type > 12)
        c->bad = true;
    else if (type == GGUF_STRING)
        string(c, &len);
    else if (type == GGUF_ARRAY) {
        uint64_t element = number(c, 4), n = number(c, 8);
        if (element == GGUF_ARRAY)
            c->bad = true;
        for (uint64_t i = 0; i < n && !c->bad; i++)
            skip_value(c, element);
    } else {
        take(c, bytes[type]);
    }
    return !c->bad;
}

static bool read_keys(struct cursor *c, struct imatrix *im, uint64_t n)
{
    for (uint64_t i = 0; i < n && !c->bad; i++) {
        uint64_t len, type;
        const char *key = string(c, &len);
        type = number(c, 4);
        bool chunks = key && len == 19 && memcmp(key, "imatrix.chunk_count", 19) == 0;
        bool size = key && len == 18 && memcmp(key, "imatrix.chunk_size", 18) == 0;
        if ((chunks || size) && type == GGUF_U32)
            *(chunks ? &im->chunks : &im->chunk_size) = (int64_t)number(c, 4);
        else
            skip_value(c, type);
    }
    return !c->bad;
}

struct listed {                 /* a tensor of the file */
    const char *name;
    uint64_t len, cols, mats, offset;
};

static bool read_list(struct cursor *c, struct listed *l, uint64_t n)
{
    for (uint64_t i = 0; i < n && !c->bad; i++) {
        uint64_t dims[4] = { 1, 1, 1, 1 };
        l[i].name = string(c, &l[i].len);
        uint64_t n_dims = number(c, 4);
        for (uint64_t d = 0; d < n_dims && !c->bad; d++) {
            uint64_t size = number(c, 8);
            if (d < 4)
                dims[d] = size;
        }
        c->bad |= n_dims > 4 || number(c, 4) != 0 /* f32 */ || dims[0] > 1 << 28 || dims[1] > 1 << 20;
        l[i].cols = dims[0];
        l[i].mats = dims[1] * dims[2] * dims[3];
        l[i].offset = number(c, 8);
        c->bad |= l[i].mats > 1 << 20;
    }
    return !c->bad;
}

static bool ends(const struct listed *l, const char *suffix)
{
    size_t n = strlen(suffix);
    return l->len > n && l->len < 256 && memcmp(l->name + l->len - n, suffix, n) == 0;
}

static bool read_tensor(struct imatrix *im, const struct mapping *map, uint64_t data, const struct listed *l,
                        const char *path, struct error *err)
{
    bool sums = ends(l, ".in_sum2");
    uint64_t bytes = 4 * l->cols * l->mats;
    if (!sums && !ends(l, ".counts"))
        return true;
    if (l->offset > map->size - data || bytes > map->size - data - l->offset)
        return fail(err, STATUS_FORMAT, "%s: %.*s lies beyond the end of the file", path, (int)l->len, l->name);
    char name[256];
    snprintf(name, sizeof name, "%.*s", (int)(l->len - (sums ? 8 : 7)), l->name);
    struct imatrix_entry *e = find(im, name);
    if (sums && e)
        return fail(err, STATUS_FORMAT, "%s: %s occurs twice", path, name);
    if (sums)
        e = imatrix_entry(im, name, (int64_t)l->cols, (int64_t)l->mats, err);
    if (!e)
        return sums ? false : true;     /* counts of something without sums */
    if (!sums && (l->cols != 1 || l->mats != (uint64_t)e->mats))
        return fail(err, STATUS_FORMAT, "%s: %s has %llu x %llu counts for %lld matrices", path, name,
                    (unsigned long long)l->cols, (unsigned long long)l->mats, (long long)e->mats);
    memcpy(sums ? e->sum2 : e->counts, map->data + data + l->offset, (size_t)bytes);
    return true;
}

static bool read_gguf(struct imatrix *im, const struct mapping *map, const char *path, struct error *err)
{
    struct cursor c = { map->data + 8, map->data + map->size, path, false };
    uint64_t n_tensors = number(&c, 8), n_keys = number(&c, 8);
    struct listed *l = NULL;
    bool ok = !c.bad && n_tensors < 1 << 20 && read_keys(&c, im, n_keys) &&
              (l = mem_new((size_t)n_tensors + 1, sizeof *l, err)) && read_list(&c, l, n_tensors);
    if (!ok) {
        free(l);
        return fail(err, STATUS_FORMAT, "%s is not a whole imatrix GGUF (float32 tensors NAME.in_sum2 and NAME.counts)", path);
    }
    uint64_t data = ((uint64_t)(c.p - map->data) + 31) / 32 * 32;
    data = data > map->size ? map->size : data;
    for (int counts = 0; ok && counts < 2; counts++)    /* sums first: they make the entries */
        for (uint64_t i = 0; ok && i < n_tensors; i++)
            if (ends(&l[i], ".counts") == counts)
                ok = read_tensor(im, map, data, &l[i], path, err);
    free(l);
    return ok;
}

/* The old form: per entry name, calls, values (sums of squares over that many calls). */
static bool read_dat(struct imatrix *im, const struct mapping *map, const char *path, struct error *err)
{
    struct cursor c = { map->data, map->data + map->size, path, false };
    uint64_t n = number(&c, 4);
    for (uint64_t i = 0; i < n && !c.bad; i++) {
        uint64_t len = number(&c, 4);
        const char *text = (const char *)take(&c, len);
        uint64_t calls = number(&c, 4), values = number(&c, 4);
        const uint8_t *data = take(&c, 4 * values);
        if (c.bad || len > 255)
            break;
        char name[256];
        snprintf(name, sizeof name, "%.*s", (int)len, text);
        struct imatrix_entry *e = imatrix_entry(im, name, (int64_t)values, 1, err);
        if (!e)
            return fail(err, STATUS_FORMAT, "%s: %s occurs twice", path, name);
        memcpy(e->sum2, data, (size_t)(4 * values));
        e->counts[0] = calls ? (float)calls : 1;
    }
    return (!c.bad && im->n > 0) || fail(err, STATUS_FORMAT, "%s is no imatrix file (GGUF or .dat)", path);
}

bool imatrix_read(struct imatrix **out, const char *path, struct error *err)
{
    struct mapping map = { 0 };
    if (!mapping_open(&map, path, err))
        return false;
    bool ok = imatrix_new(out, path, err);
    if (ok && map.size > 24 && memcmp(map.data, "GGUF", 4) == 0)
        ok = read_gguf(*out, &map, path, err);
    else if (ok)
        ok = read_dat(*out, &map, path, err);
    mapping_close(&map);
    ok = ok && imatrix_finish(*out, err);
    if (ok && (*out)->n == 0)
        ok = fail(err, STATUS_INPUT, "%s holds no importance entries", path);
    if (!ok) {
        imatrix_free(*out);
        *out = NULL;
    }
    return ok;
}

/* ---- writing ---- */

static bool write_tensors(const struct imatrix *im, struct gguf_writer *w, struct error *err)
{
    for (int i = 0; i < im->n; i++) {
        const struct imatrix_entry *e = &im->entries[i];
        if (!gguf_writer_data(w, e->sum2, (uint64_t)(4 * e->cols * e->mats), err) ||
            !gguf_writer_data(w, e->counts, (uint64_t)(4 * e->mats), err))
            return false;
    }
    return true;
}

bool imatrix_write(const struct imatrix *im, const char *path, const char *dataset, struct error *err)
{
    struct gguf_string set = { dataset, strlen(dataset) };
    const struct gguf_kv kv[] = {
        { .key = "general.type", .type = GGUF_STRING, .value.s = { "imatrix", 7 } },
        { .key = "imatrix.datasets", .type = GGUF_ARRAY, .element = GGUF_STRING, .count = 1, .value.array = &set },
        { .key = "imatrix.chunk_count", .type = GGUF_U32, .value.u = (uint64_t)im->chunks },
        { .key = "imatrix.chunk_size", .type = GGUF_U32, .value.u = (uint64_t)im->chunk_size },
    };
    struct arena a = { 0 };
    struct writer_tensor *t = mem_new(2 * (size_t)im->n, sizeof *t, err);
    bool ok = t != NULL;
    for (int i = 0; ok && i < im->n; i++) {
        const struct imatrix_entry *e = &im->entries[i];
        char name[300];
        int n = snprintf(name, sizeof name, "%s.in_sum2", e->name);
        t[2 * i] = (struct writer_tensor){ arena_str(&a, name, (size_t)n, err), FORMAT_F32, 2, { e->cols, e->mats } };
        n = snprintf(name, sizeof name, "%s.counts", e->name);
        t[2 * i + 1] = (struct writer_tensor){ arena_str(&a, name, (size_t)n, err), FORMAT_F32, 2, { 1, e->mats } };
        ok = t[2 * i].name && t[2 * i + 1].name;
    }
    struct gguf_writer *w = NULL;
    ok = ok && gguf_writer_open(&w, path, kv, ARRAY_LEN(kv), t, 2 * im->n, err);
    if (ok && write_tensors(im, w, err))
        ok = gguf_writer_commit(w, err);
    else {
        gguf_writer_discard(w);
        ok = false;
    }
    free(t);
    arena_free(&a);
    return ok;
}

/* ---- a run's imatrix ---- */

bool imatrix_load(struct job *j, struct error *err)
{
    const struct quantize_options *o = j->o;
    if (!o->imatrix_in && !j->method->info.needs_calibration)
        return true;            /* plain rounding */
    bool ok = o->imatrix_in ? imatrix_read(&j->imatrix, o->imatrix_in, err) : imatrix_collect(j, &j->imatrix, err);
    if (!ok)
        return false;
    int found = 0, wanted = 0;
    for (int i = 0; i < j->model->n_tensors; i++) {
        const struct tensor *t = &j->model->tensors[i];
        bool table = strstr(t->name, "token_embd") != NULL || t->rows == 1;
        wanted += !table;
        found += !table && imatrix_importance(j->imatrix, t) != NULL;
    }
    if (!found)
        return fail(err, STATUS_INPUT, "%s has no entry for any matrix of %s", j->imatrix->source, j->model->path);
    if (found < wanted / 2)
        job_warn(j, "%s covers %d of %d tensors of %s; the others are rounded without it", j->imatrix->source, found, wanted, j->model->path);
    text_printf(&j->notes, "imatrix=%s\nimatrix.entries=%d\nimatrix.chunks=%lld\n", path_base(j->imatrix->source), j->imatrix->n,
                (long long)j->imatrix->chunks);
    return !o->imatrix_out || imatrix_write(j->imatrix, o->imatrix_out, j->calibration ? j->calibration->name : j->imatrix->source, err);
}
