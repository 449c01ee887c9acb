/* attention.h - one tile of positions for many queries, in the operations of a lanes_*.h: K is turned once for all of them, V
 * is read once for four at a time.  Each query's arithmetic is attention_f32's: the same sums in the same order. */
#ifndef QDELTA_ATTENTION_H
#define QDELTA_ATTENTION_H

#include "tiles.h"
#include "vectors.h"

enum { QUERIES_AT_ONCE = 64 };

struct tile {
    const float *k[ATTENTION_TILE], *v[ATTENTION_TILE];
    int first, n;               /* positions [first, first + n); row i is position first + i */
    size_t run_step;            /* floats from row to row of k, where all lie in one run; else 0 */
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

/* float_lanes.h: scores are a float product whose weights are K. */
static void expand_float(enum format_id f, const uint8_t *rows, size_t step, int n, const uint8_t *next, float *w);
static void multiply_float(const float *w, const float *x, int T, int n, bool begins, float *acc);
static void multiply_direct(enum format_id f, const uint8_t *rows, size_t step, int n, const uint8_t *next, const float *x, int T,
                            bool begins, float *acc);
static int widest_float(void), widest_direct(void);

/* Columns k .. k + n of FLOAT_ROWS positions from row on: in place where they lie evenly, or copied; those beyond the last
 * one are zero. */
static const float *key_rows(const struct tile *t, int row, int k, int n, float *copy, size_t *step)
{
    int rows = t->n - row < FLOAT_ROWS ? t->n - row : FLOAT_ROWS;
    *step = t->run_step;
    if (t->run_step && rows == FLOAT_ROWS)
        return t->k[row] + k;
    *step = (size_t)n;
    for (int i = 0; i < FLOAT_ROWS; i++)
        if (i < rows)
            memcpy(copy + i * n, t->k[row + i] + k, (size_t)n * sizeof *copy);
        else
            memset(copy + i * n, 0, (size_t)n * sizeof *copy);
    return copy;
}

/* acc [n queries][FLOAT_ROWS] += columns k .. of their products with FLOAT_ROWS positions; x [n][FLOAT_PART]: the queries' columns. */
static void scores_part(const struct tile *t, int row, const float *x, int n, int k, int cols, float *acc)
{
    float copy[FLOAT_ROWS * FLOAT_PART], w[FLOAT_PART * FLOAT_ROWS] __attribute__((aligned(64)));
    size_t step;
    const uint8_t *rows = (const uint8_t *)key_rows(t, row, k, cols, copy, &step);
    step *= sizeof(float);
    if (n <= widest_direct()) {
        multiply_direct(FORMAT_F32, rows, step, cols, rows, x, n, k == 0, acc);
        return;
    }
    expand_float(FORMAT_F32, rows, step, cols, rows, w);
    for (int g = 0, T; g < n; g += T) {
        T = n - g < widest_float() ? n - g : widest_float();
        multiply_float(w, x + g * FLOAT_PART, T, cols, k == 0, acc + g * FLOAT_ROWS);
    }
}

/* Scores of n queries against every row of the tile; what stands beyond its last one is hidden later. */
static void tile_scores(const struct tile *t, struct attention_query *const *qs, int n, int h, float *s)
{
    float x[QUERIES_AT_ONCE * FLOAT_PART], acc[ATTENTION_TILE / FLOAT_ROWS][QUERIES_AT_ONCE * FLOAT_ROWS];
    for (int k = 0; k < h; k += FLOAT_PART) {
        int cols = h - k < FLOAT_PART ? h - k : FLOAT_PART;
        for (int g = 0; g < n; g++)
            memcpy(x + g * FLOAT_PART, qs[g]->q + k, (size_t)cols * sizeof *x);
        for (int j = 0; j < t->n; j += FLOAT_ROWS)
            scores_part(t, j, x, n, k, cols, acc[j / FLOAT_ROWS]);
    }
    for (int j = 0; j < t->n; j += FLOAT_ROWS)
        for (int g = 0; g < n; g++)
            memcpy(s + g * ATTENTION_TILE + j, acc[j / FLOAT_ROWS] + g * FLOAT_ROWS, FLOAT_ROWS * sizeof *s);
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
    int parts = 0;
    t->first = from;
    t->n = 0;
    t->run_step = 0;
    while (*run < n_runs && runs[*run].first + runs[*run].n <= from)
        ++*run;
    for (int r = *run; r < n_runs && runs[r].first < to; r++) {
        t->run_step = parts++ ? 0 : runs[r].stride;
        for (int p = from + t->n; p < to && p < runs[r].first + runs[r].n; p++) {
            size_t at = (size_t)(p - runs[r].first) * runs[r].stride;
            t->k[t->n] = runs[r].k + at;
            t->v[t->n++] = runs[r].v + at;
        }
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
