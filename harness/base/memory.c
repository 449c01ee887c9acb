#include "memory.h"

#include <stdlib.h>
#include <string.h>

static void *no_memory(size_t count, size_t size, struct error *err)
{
    fail(err, STATUS_MEMORY, "out of memory: %zu x %zu bytes", count, size);
    return NULL;
}

void *mem_new(size_t count, size_t size, struct error *err)
{
    if (size && count > PTRDIFF_MAX / size)
        return no_memory(count, size, err);
    void *p = calloc(count ? count : 1, size ? size : 1);
    return p ? p : no_memory(count, size, err);
}

void *mem_aligned(size_t count, size_t size, struct error *err)
{
    if (size && count > (PTRDIFF_MAX - 64) / size)
        return no_memory(count, size, err);
    size_t bytes = (count * size + 63) / 64 * 64;
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes ? bytes : 64) != 0)
        return no_memory(count, size, err);
    return p;
}

void *mem_new_aligned(size_t count, size_t size, struct error *err)
{
    void *p = mem_aligned(count, size, err);
    if (p && count && size)
        memset(p, 0, (count * size + 63) / 64 * 64);
    return p;
}

bool mem_grow(void *array, size_t *cap, size_t need, size_t size, struct error *err)
{
    if (need <= *cap)
        return true;
    size_t want = *cap ? *cap : 16;
    while (want < need && want <= SIZE_MAX / 2)
        want *= 2;
    if (want < need || (size && want > PTRDIFF_MAX / size))
        return no_memory(need, size, err), false;
    void **p = array;
    void *grown = realloc(*p, want * size);
    if (!grown)
        return no_memory(want, size, err), false;
    memset((char *)grown + *cap * size, 0, (want - *cap) * size);
    *p = grown;
    *cap = want;
    return true;
}

char *str_dup_n(const char *s, size_t len, struct error *err)
{
    char *p = mem_new(len + 1, 1, err);
    if (p && len)
        memcpy(p, s, len);
    return p;
}

char *str_dup(const char *s, struct error *err)
{
    return str_dup_n(s, strlen(s), err);
}

struct arena_block {
    struct arena_block *next;
    size_t used, cap;
    _Alignas(16) unsigned char data[];
};

void *arena_new(struct arena *a, size_t size, struct error *err)
{
    if (size > SIZE_MAX / 2)
        return no_memory(1, size, err);
    size_t need = (size + 15) / 16 * 16;
    if (!a->blocks || a->blocks->cap - a->blocks->used < need) {
        size_t cap = need > 1u << 18 ? need : 1u << 18;
        struct arena_block *b = mem_new(1, sizeof *b + cap, err);
        if (!b)
            return NULL;
        b->next = a->blocks;
        b->cap = cap;
        a->blocks = b;
    }
    void *p = a->blocks->data + a->blocks->used;
    a->blocks->used += need;
    return p;
}

char *arena_str(struct arena *a, const char *s, size_t len, struct error *err)
{
    char *p = arena_new(a, len + 1, err);
    if (p && len)
        memcpy(p, s, len);
    return p;
}

void arena_free(struct arena *a)
{
    for (struct arena_block *b = a->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    a->blocks = NULL;
}

struct map_slot {
    const char *key;    /* NULL: free */
    size_t len;
    uint64_t hash;
    int64_t value;
};

uint64_t hash_bytes(const void *data, size_t len)
{
    const unsigned char *p = data;
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    h ^= h >> 32;
    h *= 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static struct map_slot *map_find(const struct map *m, const char *key, size_t len, uint64_t hash)
{
    for (size_t i = hash & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
        struct map_slot *s = &m->slots[i];
        if (!s->key || (s->hash == hash && s->len == len && memcmp(s->key, key, len) == 0))
            return s;
    }
}

static bool map_resize(struct map *m, size_t cap, struct error *err)
{
    struct map bigger = { mem_new(cap, sizeof *bigger.slots, err), cap, m->count };
    if (!bigger.slots)
        return false;
    for (size_t i = 0; i < m->cap; i++)
        if (m->slots[i].key)
            *map_find(&bigger, m->slots[i].key, m->slots[i].len, m->slots[i].hash) = m->slots[i];
    free(m->slots);
    *m = bigger;
    return true;
}

bool map_put(struct map *m, const char *key, size_t len, int64_t value, struct error *err)
{
    if (m->count * 2 >= m->cap && !map_resize(m, m->cap ? m->cap * 2 : 64, err))
        return false;
    uint64_t hash = hash_bytes(key, len);
    struct map_slot *s = map_find(m, key, len, hash);
    m->count += !s->key;
    *s = (struct map_slot){ key, len, hash, value };
    return true;
}

bool map_get(const struct map *m, const char *key, size_t len, int64_t *value)
{
    if (!m->cap)
        return false;
    const struct map_slot *s = map_find(m, key, len, hash_bytes(key, len));
    if (!s->key)
        return false;
    *value = s->value;
    return true;
}

void map_free(struct map *m)
{
    free(m->slots);
    *m = (struct map){ 0 };
}
