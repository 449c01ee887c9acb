/* sequence.c - sequences: own tokens, K/V in blocks of KV_BLOCK positions counted from absolute position 0,
 * a read-only chain of prefixes.
 *
 * Sliding layers give back blocks that lie more than KV_KEEP positions behind their window.  A truncation that
 * goes back further than what was kept marks the sequence as not computed; the next call computes its own
 * tokens again, which gives the same bits because nothing here depends on how tokens are split into calls. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static int block_of(int position)
{
    return position / KV_BLOCK;
}

static int lower(int a, int b)
{
    return a < b ? a : b;
}

static int higher(int a, int b)
{
    return a > b ? a : b;
}

/* ---- blocks ---- */

static float *block_new(struct engine *e, int class, struct error *err)
{
    struct kv_free *f = &e->free_blocks[class];
    if (f->first) {
        void *p = f->first;
        memcpy(&f->first, p, sizeof f->first);
        return p;
    }
    float *p = mem_new_aligned(f->block_floats, sizeof *p, err);
    e->kv_bytes += p ? f->block_floats * sizeof *p : 0;
    return p;
}

static void block_free(struct engine *e, int class, float *p)
{
    struct kv_free *f = &e->free_blocks[class];
    if (!p)
        return;
    memcpy(p, &f->first, sizeof f->first);
    f->first = p;
}

void kv_free_all(struct engine *e)
{
    for (int i = 0; i < e->n_classes; i++)
        while (e->free_blocks[i].first) {
            void *p = e->free_blocks[i].first;
            memcpy(&e->free_blocks[i].first, p, sizeof p);
            free(p);
        }
}

static float **block_at(const struct seq *s, int block, int slot)
{
    return &s->blocks[(size_t)(block - s->first_block) * (size_t)s->e->n_slots + (size_t)slot];
}

static void drop_blocks(struct seq *s, int from, int to, int slot)
{
    struct engine *e = s->e;
    for (int b = from; b < to; b++) {
        float **p = block_at(s, b, slot);
        block_free(e, e->slots[slot].size_class, *p);
        *p = NULL;
    }
}

void seq_drop_slot(struct seq *s, int slot)
{
    drop_blocks(s, s->first_block, s->first_block + s->n_blocks, slot);
}

bool seq_has_slot(const struct seq *s, int slot)
{
    return s->n_blocks > 0 && *block_at(s, s->first_block, slot);
}

static bool table_grow(struct seq *s, int blocks, struct error *err)
{
    size_t before = s->blocks_cap;
    if (!mem_grow(&s->blocks, &s->blocks_cap, (size_t)blocks * (size_t)s->e->n_slots, sizeof *s->blocks, err))
        return false;
    s->e->kv_bytes += (s->blocks_cap - before) * sizeof *s->blocks;
    return true;
}

bool seq_reserve(struct seq *s, int end, int slot, struct error *err)
{
    struct engine *e = s->e;
    int blocks = end > s->base ? block_of(end - 1) - s->first_block + 1 : 0;
    if (!table_grow(s, blocks, err))
        return false;
    s->n_blocks = higher(s->n_blocks, blocks);
    for (int b = s->first_block; b < s->first_block + blocks; b++)
        for (int i = slot < 0 ? 0 : slot; i < (slot < 0 ? e->n_slots : slot + 1); i++) {
            float **p = block_at(s, b, i);
            if (*p || (e->slots[i].sliding && b < s->sliding_from))
                continue;
            if (!(*p = block_new(e, e->slots[i].size_class, err)))
                return false;
        }
    return true;
}

void seq_advance(struct seq *s, int computed)
{
    struct engine *e = s->e;
    s->computed = computed;
    if (!e->window_max)
        return;
    int keep = higher(block_of(higher(computed - e->window_max - KV_KEEP, 0)), s->first_block);
    for (int i = 0; i < e->n_slots && keep > s->sliding_from; i++)
        if (e->slots[i].sliding)
            drop_blocks(s, s->sliding_from, keep, i);
    s->sliding_from = higher(s->sliding_from, keep);
}

/* ---- open, close, truncate ---- */

/* A prefix is read-only once it has children, so whatever it still has to compute is computed now. */
static bool settle(struct seq *s, struct error *err)
{
    struct work w = { s, s->length };
    return s->computed == s->length || batch_run(s->e, &w, 1, NULL, err);
}

bool seq_open(struct seq **out, struct engine *e, struct seq *prefix, struct error *err)
{
    *out = NULL;
    if (prefix && !settle(prefix, err))
        return false;
    struct seq *s = mem_new(1, sizeof *s, err);
    if (!s)
        return false;
    s->e = e;
    s->prefix = prefix;
    s->base = s->length = s->computed = prefix ? prefix->length : 0;
    s->first_block = s->sliding_from = block_of(s->base);
    if (prefix)
        prefix->n_children++;
    *out = s;
    return true;
}

void seq_close(struct seq *s)
{
    if (!s)
        return;
    assert(s->n_children == 0);
    for (int i = 0; i < s->e->n_slots; i++)
        seq_drop_slot(s, i);
    s->e->kv_bytes -= s->blocks_cap * sizeof *s->blocks + s->ids_cap * sizeof *s->ids;
    if (s->prefix)
        s->prefix->n_children--;
    free(s->blocks);
    free(s->ids);
    free(s);
}

int seq_length(const struct seq *s)
{
    return s->length;
}

static bool window_is_kept(const struct seq *s, int length)
{
    int sees = higher(length - s->e->window_max + 1, s->base);
    return !s->e->window_max || s->sliding_from == s->first_block || block_of(sees) >= s->sliding_from;
}

void seq_truncate(struct seq *s, int length)
{
    assert(s->n_children == 0 && length >= s->base && length <= s->length);
    s->length = length;
    s->computed = lower(s->computed, length);
    if (!window_is_kept(s, s->computed)) {
        s->computed = s->base;
        s->sliding_from = s->first_block;
    }
    int blocks = s->computed > s->base ? block_of(s->computed - 1) - s->first_block + 1 : 0;
    for (int i = 0; i < s->e->n_slots && blocks < s->n_blocks; i++)
        drop_blocks(s, s->first_block + blocks, s->first_block + s->n_blocks, i);
    s->n_blocks = lower(s->n_blocks, blocks);
}

bool seq_ids_add(struct seq *s, const int32_t *ids, int n, struct error *err)
{
    size_t own = (size_t)(s->length - s->base), before = s->ids_cap;
    for (int i = 0; i < n; i++)
        if (!embedding_check(s->e, ids[i], err))
            return false;
    if (!mem_grow(&s->ids, &s->ids_cap, own + (size_t)n, sizeof *s->ids, err))
        return false;
    s->e->kv_bytes += (s->ids_cap - before) * sizeof *s->ids;
    memcpy(s->ids + own, ids, (size_t)n * sizeof *ids);
    s->length += n;
    return true;
}

/* ---- reading ---- */

int seq_depth(const struct seq *s)
{
    int depth = 0;
    for (; s; s = s->prefix)
        depth++;
    return depth;
}

size_t seq_runs_most(const struct seq *s, int to)
{
    return (size_t)(block_of(to) + 1 + 2 * seq_depth(s));
}

float *seq_k(const struct seq *s, int slot, int position, int kv_head)
{
    const struct kv_slot *k = &s->e->slots[slot];
    size_t row = (size_t)kv_head * KV_BLOCK + (size_t)(position % KV_BLOCK);
    return *block_at(s, block_of(position), slot) + row * (size_t)k->head_size;
}

float *seq_v(const struct seq *s, int slot, int position, int kv_head)
{
    return seq_k(s, slot, position, kv_head) + s->e->slots[slot].block_floats / 2;
}

int seq_runs(const struct seq *s, int slot, int kv_head, int from, int to, struct kv_run *runs)
{
    int n = s->prefix && from < s->base ? seq_runs(s->prefix, slot, kv_head, from, lower(to, s->base), runs) : 0;
    size_t h = (size_t)s->e->slots[slot].head_size;
    for (int at = higher(from, s->base); at < to;) {
        int end = lower((block_of(at) + 1) * KV_BLOCK, to);
        runs[n++] = (struct kv_run){ seq_k(s, slot, at, kv_head), seq_v(s, slot, at, kv_head), h, at, end - at };
        at = end;
    }
    return n;
}
