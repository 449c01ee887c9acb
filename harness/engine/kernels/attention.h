/* attention.h - one tile of positions for many queries, in the operations of a lanes_*.h: K and V are read once for
 * four queries at a time.  Each query's arithmetic is attention_f32's: the same sums in the same order. */
#ifndef QDELTA_ATTENTION_H
#define QDELTA_ATTENTION_H

#include "vectors.h"

enum { QUERIES_AT_ONCE = 16 };

struct tile {
    const float *k[ATTENTION_TILE], *v[ATTENTION_TILE];
    int first, n;               /* positions [first, first + n); row i is position first + i */
};

/* Rows [from, to) of the tile that a query sees. */
static inline int tile_from(const struct tile *t, const struct attention_query *q)
{
    return q->from > t->first ? q->from - t->first : 0;
}

static inline int tile_to(const struct tile *t, const struct attention_query *q)
{
    return q->to < t->first + t->n ? q->to - t->first : t->n;
}

#ifdef LANES_IN_MEMORY

static void tile_scores(const struct tile *t, struct attention_query *const *qs, int n, int h, float *s)
{
    for (int g = 0; g < n; g++)
        for (int j = 0; j < t->n; j++)
            s[g * ATTENTION_TILE + j] = dot_f32(qs[g]->q, t->k[j], h);
}

static void tile_values(const struct tile *t, struct attention_query *const *qs, int n, int h, const float *s)
{
    for (int g = 0; g < n; g++)
        for (int j = tile_from(t, qs[g]); j < tile_to(t, qs[g]); j++)
            axpy(qs[g]->out, s[g * ATTENTION_TILE + j], t->v[j], h);
}

#else

/* Sums of four accumulators; a set may have a faster way to the same sums. */
#ifndef HAVE_V_SUM4
static inline void v_sum4(v16 a, v16 b, v16 c, v16 d, float *out)
{
    out[0] = v_sum(a);
    out[1] = v_sum(b);
    out[2] = v_sum(c);
    out[3] = v_sum(d);
}
#endif

/* s[j] = dot16(q, k[j]) for four rows. */
static inline void scores_1x4(const float *q, const float *const *k, int h, float *s)
{
    v16 a0 = v_set(0.0f), a1 = a0, a2 = a0, a3 = a0;
    int c = 0;
    for (; c + 16 <= h; c += 16) {
        v16 x = v_load(q + c);
        a0 = v_fma(x, v_load(k[0] + c), a0);
        a1 = v_fma(x, v_load(k[1] + c), a1);
        a2 = v_fma(x, v_load(k[2] + c), a2);
        a3 = v_fma(x, v_load(k[3] + c), a3);
    }
    if (c < h) {
        v16 x = v_load_n(q + c, h - c);
        a0 = v_fma(x, v_load_n(k[0] + c, h - c), a0);
        a1 = v_fma(x, v_load_n(k[1] + c, h - c), a1);
        a2 = v_fma(x, v_load_n(k[2] + c, h - c), a2);
        a3 = v_fma(x, v_load_n(k[3] + c, h - c), a3);
    }
    v_sum4(a0, a1, a2, a3, s);
}

/* The same for four queries, h a multiple of 16; query i's scores at s + i * ATTENTION_TILE.  Accumulators are
 * named one by one so that they stay in registers. */
#define ROW(i)                              \
    x = v_load(q[i] + c);                   \
    a##i##0 = v_fma(x, k0, a##i##0);        \
    a##i##1 = v_fma(x, k1, a##i##1);        \
    a##i##2 = v_fma(x, k2, a##i##2);        \
    a##i##3 = v_fma(x, k3, a##i##3);
static inline void scores_4x4(const float *const *q, const float *const *k, int h, float *s)
{
    v16 a00 = v_set(0.0f), a01 = a00, a02 = a00, a03 = a00, a10 = a00, a11 = a00, a12 = a00, a13 = a00;
    v16 a20 = a00, a21 = a00, a22 = a00, a23 = a00, a30 = a00, a31 = a00, a32 = a00, a33 = a00;
    for (int c = 0; c < h; c += 16) {
        v16 k0 = v_load(k[0] + c), k1 = v_load(k[1] + c), k2 = v_load(k[2] + c), k3 = v_load(k[3] + c), x;
        ROW(0) ROW(1) ROW(2) ROW(3)
    }
    v_sum4(a00, a01, a02, a03, s);
    v_sum4(a10, a11, a12, a13, s + ATTENTION_TILE);
    v_sum4(a20, a21, a22, a23, s + 2 * ATTENTION_TILE);
    v_sum4(a30, a31, a32, a33, s + 3 * ATTENTION_TILE);
}
#undef ROW

/* Scores of n queries against every row of the tile; rows beyond its last one repeat it and are hidden later. */
static void tile_scores(const struct tile *t, struct attention_query *const *qs, int n, int h, float *s)
{
    for (int j = 0; j < t->n; j += 4) {
        const float *k[4];
        for (int i = 0; i < 4; i++)
            k[i] = t->k[j + i < t->n ? j + i : t->n - 1];
        int g = 0;
        for (; h % 16 == 0 && g + 4 <= n; g += 4) {
            const float *q[4] = { qs[g]->q, qs[g + 1]->q, qs[g + 2]->q, qs[g + 3]->q };
            scores_4x4(q, k, h, s + g * ATTENTION_TILE + j);
        }
        for (; g < n; g++)
            scores_1x4(qs[g]->q, k, h, s + g * ATTENTION_TILE + j);
    }
}

#define ROW(i)                              \
    p = v_set(s[i * ATTENTION_TILE + j]);   \
    a##i##0 = v_fma(p, v0, a##i##0);        \
    a##i##1 = v_fma(p, v1, a##i##1);        \
    a##i##2 = v_fma(p, v2, a##i##2);        \
    a##i##3 = v_fma(p, v3, a##i##3);
#define LOAD(i)                                                                                                       \
    v16 a##i##0 = v_load(qs[i]->out + c), a##i##1 = v_load(qs[i]->out + c + 16), a##i##2 = v_load(qs[i]->out + c + 32), \
        a##i##3 = v_load(qs[i]->out + c + 48);
#define STORE(i)                            \
    v_store(qs[i]->out + c, a##i##0);       \
    v_store(qs[i]->out + c + 16, a##i##1);  \
    v_store(qs[i]->out + c + 32, a##i##2);  \
    v_store(qs[i]->out + c + 48, a##i##3);
/* out += sum p_j v_j over rows [from, to) in order, columns [c, c + 64). */
static inline void values_4x64(const struct tile *t, struct attention_query *const *qs, const float *s, int from, int to, int c)
{
    LOAD(0) LOAD(1) LOAD(2) LOAD(3)
    for (int j = from; j < to; j++) {
        const float *v = t->v[j] + c;
        v16 v0 = v_load(v), v1 = v_load(v + 16), v2 = v_load(v + 32), v3 = v_load(v + 48), p;
        ROW(0) ROW(1) ROW(2) ROW(3)
    }
    STORE(0) STORE(1) STORE(2) STORE(3)
}

static inline void values_1x64(const struct tile *t, struct attention_query *const *qs, const float *s, int from, int to, int c)
{
    LOAD(0)
    for (int j = from; j < to; j++) {
        const float *v = t->v[j] + c;
        v16 v0 = v_load(v), v1 = v_load(v + 16), v2 = v_load(v + 32), v3 = v_load(v + 48), p;
        ROW(0)
    }
    STORE(0)
}
#undef ROW
#undef LOAD
#undef STORE

static inline void values_1x16(const struct tile *t, float *out, const float *s, int from, int to, int c, int left)
{
    v16 a = load_up_to(out + c, left);
    for (int j = from; j < to; j++)
        a = v_fma(v_set(s[j]), load_up_to(t->v[j] + c, left), a);
    store_up_to(out + c, a, left);
}

static void values_one(const struct tile *t, struct attention_query *const *q, int h, const float *s, int from, int to)
{
    int c = 0;
    for (; c + 64 <= h; c += 64)
        values_1x64(t, q, s, from, to, c);
    for (; c < h; c += 16)
        values_1x16(t, q[0]->out, s, from, to, c, h - c);
}

/* Four queries: the rows that all of them see are read once; what one sees before and after those, alone. */
static void values_four(const struct tile *t, struct attention_query *const *qs, int h, const float *s)
{
    int from = 0, to = t->n;
    for (int i = 0; i < 4; i++) {
        int a = tile_from(t, qs[i]), b = tile_to(t, qs[i]);
        from = a > from ? a : from;
        to = b < to ? b : to;
    }
    to = to > from ? to : from;
    int wide = h / 64 * 64;
    for (int i = 0; i < 4; i++) {
        int a = tile_from(t, qs[i]), b = tile_to(t, qs[i]);
        for (int c = 0; c < wide && a < from; c += 64)
            values_1x64(t, qs + i, s + i * ATTENTION_TILE, a, b < from ? b : from, c);
        for (int c = wide; c < h; c += 16)
            values_1x16(t, qs[i]->out, s + i * ATTENTION_TILE, a, b, c, h - c);
    }
    for (int c = 0; c < wide; c += 64)
        values_4x64(t, qs, s, from, to, c);
    for (int i = 0; i < 4; i++)
        for (int c = 0, b = tile_to(t, qs[i]), a = tile_from(t, qs[i]); c < wide && b > to; c += 64)
            values_1x64(t, qs + i, s + i * ATTENTION_TILE, a > to ? a : to, b, c);
}

static void tile_values(const struct tile *t, struct attention_query *const *qs, int n, int h, const float *s)
{
    int g = 0;
    for (; g + 4 <= n; g += 4)
        values_four(t, qs + g, h, s + g * ATTENTION_TILE);
    for (; g < n; g++)
        values_one(t, qs + g, h, s + g * ATTENTION_TILE, tile_from(t, qs[g]), tile_to(t, qs[g]));
}

#endif

/* Raw scores to weights. Slot 0 of s is the position t->first - lead: tiles are counted from position 0. */
static void tile_weights(const struct tile *t, struct attention_query *q, int h, float scale, float cap, float *s)
{
    float slots[ATTENTION_TILE];
    int lead = t->first % ATTENTION_TILE, from = tile_from(t, q), to = tile_to(t, q);
    for (int i = 0; i < ATTENTION_TILE; i++)
        slots[i] = -INFINITY;
    for (int i = from; i < to; i++)
        slots[lead + i] = s[i] * scale;
    if (cap > 0)
        softcap_f32(slots + lead + from, cap, to - from);
    struct softmax st = { q->max, q->sum };
    softmax_tile(&st, slots, q->out, h);
    q->max = st.max;
    q->sum = st.sum;
    memcpy(s + from, slots + lead + from, (size_t)(to - from) * sizeof *s);
}

static void tile_queries(const struct tile *t, struct attention_query *const *qs, int n, int h, float scale, float cap)
{
    float s[QUERIES_AT_ONCE * ATTENTION_TILE];
    tile_scores(t, qs, n, h, s);
    for (int i = 0; i < n; i++)
        tile_weights(t, qs[i], h, scale, cap, s + i * ATTENTION_TILE);
    tile_values(t, qs, n, h, s);
}

/* Row pointers of positions [from, to) of one tile; *run is the first run that reaches it, for the next tile too. */
static void tile_rows(struct tile *t, const struct kv_run *runs, int n_runs, int *run, int from, int to)
{
    t->first = from;
    t->n = 0;
    while (*run < n_runs && runs[*run].first + runs[*run].n <= from)
        ++*run;
    for (int r = *run; r < n_runs && runs[r].first < to; r++)
        for (int p = from + t->n; p < to && p < runs[r].first + runs[r].n; p++) {
            size_t at = (size_t)(p - runs[r].first) * runs[r].stride;
            t->k[t->n] = runs[r].k + at;
            t->v[t->n++] = runs[r].v + at;
        }
}

static void attention_tiles_f32(struct attention_query *queries, int n, int h, const struct kv_run *runs, int n_runs,
                                int from, int to, float scale, float cap)
{
    int run = 0;
    for (int at = from; at < to; at = at - at % ATTENTION_TILE + ATTENTION_TILE) {
        struct tile t;
        int end = at - at % ATTENTION_TILE + ATTENTION_TILE;
        tile_rows(&t, runs, n_runs, &run, at, end < to ? end : to);
        struct attention_query *seeing[QUERIES_AT_ONCE];
        int m = 0;
        for (int i = 0; i < n; i++) {
            if (queries[i].from < t.first + t.n && queries[i].to > t.first)
                seeing[m++] = &queries[i];
            if (m == QUERIES_AT_ONCE || (m && i + 1 == n)) {
                tile_queries(&t, seeing, m, h, scale, cap);
                m = 0;
            }
        }
    }
}

#endif
