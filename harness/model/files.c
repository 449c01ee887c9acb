/* files.c - mapped files and the list of raw tensors in them. */
#include "files.h"

#include <stdlib.h>

bool files_add_map(struct model_files *f, const char *path, struct mapping **out, struct error *err)
{
    size_t n = (size_t)f->n_maps;
    if (!mem_grow(&f->maps, &f->maps_cap, n + 1, sizeof *f->maps, err) ||
        !mem_grow(&f->paths, &f->paths_cap, n + 1, sizeof *f->paths, err))
        return false;
    char *copy = arena_str(&f->arena, path, strlen(path), err);
    struct mapping m = { 0 };
    if (!copy || !mapping_open(&m, path, err))
        return false;
    f->maps[n] = m;
    f->paths[n] = copy;
    f->n_maps++;
    *out = &f->maps[n];
    return foreign_file(&m, copy, err);
}

bool files_add_raw(struct model_files *f, const struct raw_tensor *t, struct error *err)
{
    int64_t other;
    size_t len = strlen(t->name);
    for (int i = 0; i < t->n_dims; i++)
        if (t->dims[i] <= 0)
            return fail(err, STATUS_FORMAT, "%s: tensor %s has a dimension of %lld", t->file, t->name, (long long)t->dims[i]);
    if (map_get(&f->raw_index, t->name, len, &other))
        return fail(err, STATUS_FORMAT, "%s: tensor %s occurs twice (also in %s)", t->file, t->name, f->raw[other].file);
    if (!mem_grow(&f->raw, &f->raw_cap, f->n_raw + 1, sizeof *f->raw, err))
        return false;
    f->raw[f->n_raw] = *t;
    return map_put(&f->raw_index, t->name, len, (int64_t)f->n_raw++, err);
}

struct raw_tensor *files_raw(const struct model_files *f, const char *name)
{
    int64_t i;
    return map_get(&f->raw_index, name, strlen(name), &i) ? &f->raw[i] : NULL;
}

void *files_own(struct model_files *f, uint64_t bytes, struct error *err)
{
    if (!mem_grow(&f->owned, &f->owned_cap, f->n_owned + 1, sizeof *f->owned, err))
        return NULL;
    void *p = bytes > SIZE_MAX ? NULL : mem_aligned((size_t)bytes, 1, err);
    if (p)
        f->owned[f->n_owned++] = p;
    return p;
}

void files_disown(struct model_files *f, size_t n)
{
    while (f->n_owned > n)
        free(f->owned[--f->n_owned]);
}

static int by_address(const void *a, const void *b)
{
    const struct raw_tensor *x = *(struct raw_tensor *const *)a, *y = *(struct raw_tensor *const *)b;
    return x->data < y->data ? -1 : x->data > y->data;
}

bool files_check_overlap(struct model_files *f, struct error *err)
{
    struct raw_tensor **order = mem_new(f->n_raw + 1, sizeof *order, err);
    bool ok = order != NULL;
    if (!order)
        return false;
    for (size_t i = 0; i < f->n_raw; i++)
        order[i] = &f->raw[i];
    qsort(order, f->n_raw, sizeof *order, by_address);
    for (size_t i = 1; ok && i < f->n_raw; i++)
        if (order[i - 1]->file == order[i]->file && order[i - 1]->data + order[i - 1]->bytes > order[i]->data)
            ok = fail(err, STATUS_FORMAT, "%s: tensors %s and %s overlap", order[i]->file, order[i - 1]->name, order[i]->name);
    free(order);
    return ok;
}

void files_free(struct model_files *f)
{
    if (!f)
        return;
    for (int i = 0; i < f->n_maps; i++)
        mapping_close(&f->maps[i]);
    files_disown(f, 0);
    map_free(&f->raw_index);
    map_free(&f->kv_index);
    map_free(&f->tensor_index);
    free(f->owned);
    free(f->maps);
    free(f->paths);
    free(f->raw);
    free(f->kv);
    cJSON_Delete(f->config);
    arena_free(&f->arena);
    free(f);
}
