/* memory.h - allocation that checks its arithmetic and reports failure, an arena, a string map. */
#ifndef QDELTA_MEMORY_H
#define QDELTA_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

/* count * size zeroed bytes, or NULL with err filled (overflow counts as out of memory). */
void *mem_new(size_t count, size_t size, struct error *err);

/* The same, aligned to 64 bytes (a cache line, a zmm register); free() releases it. */
void *mem_new_aligned(size_t count, size_t size, struct error *err);
/* The same, but with whatever bytes were there: for what is filled whole, by several threads. */
void *mem_aligned(size_t count, size_t size, struct error *err);

/* Make *array (of *cap elements of size bytes) hold at least need elements; grows by doubling. */
bool mem_grow(void *array, size_t *cap, size_t need, size_t size, struct error *err);

char *str_dup(const char *s, struct error *err);
char *str_dup_n(const char *s, size_t len, struct error *err);

/* Many small pieces that live and die together. Zero-initialise; not for sharing between threads. */
struct arena {
    struct arena_block *blocks;
};
void *arena_new(struct arena *a, size_t size, struct error *err);   /* zeroed, 16-byte aligned */
char *arena_str(struct arena *a, const char *s, size_t len, struct error *err);  /* NUL added */
void arena_free(struct arena *a);

/* Byte string -> int64.  Keys are borrowed and must outlive the map.  Zero-initialise. */
struct map {
    struct map_slot *slots;
    size_t cap, count;
};
bool map_put(struct map *m, const char *key, size_t len, int64_t value, struct error *err);  /* replaces */
bool map_get(const struct map *m, const char *key, size_t len, int64_t *value);
void map_free(struct map *m);

/* FNV-1a 64 with a final mix: stable across platforms, so it may decide subsets and shards. */
uint64_t hash_bytes(const void *data, size_t len);

#endif
