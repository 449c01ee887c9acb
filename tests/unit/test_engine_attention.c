/* Attention of many queries over lists of runs must be attention_head of each query, bit for bit. */
#include "check.h"
#include "engine/kernels/kernels.h"

enum { POSITIONS = 333, QUERIES = 23, MOST_HEAD = 256 };

static void fill(float *x, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(4 * random_unit_at(seed, i) - 2);
}

/* Runs of these lengths, again and again, until position n; each in memory of its own. */
static int cut(struct kv_run *runs, const float *k, const float *v, int h, const int *lengths, int n)
{
    int count = 0;
    for (int at = 0; at < n; count++) {
        int len = lengths[count % 4] < n - at ? lengths[count % 4] : n - at;
        runs[count] = (struct kv_run){ k + (size_t)at * (size_t)h, v + (size_t)at * (size_t)h, (size_t)h, at, len };
        at += len;
    }
    return count;
}

struct shape {
    int h;
    float cap;
    int window;                 /* 0: all */
    int lengths[4];
};

static void check_shape(const struct kernels *k, const struct shape *s)
{
    static float keys[POSITIONS * MOST_HEAD], values[POSITIONS * MOST_HEAD], q[QUERIES * MOST_HEAD];
    static float got[QUERIES * MOST_HEAD], want[MOST_HEAD], scratch[2 * ATTENTION_TILE + MOST_HEAD];
    struct kv_run runs[POSITIONS];
    struct attention_query queries[QUERIES];
    int n_runs = cut(runs, keys, values, s->h, s->lengths, POSITIONS), low = POSITIONS;
    fill(keys, ARRAY_LEN(keys), 1);
    fill(values, ARRAY_LEN(values), 2);
    fill(q, ARRAY_LEN(q), 3);
    for (int i = 0; i < QUERIES; i++) {
        int to = POSITIONS - i / 3, from = s->window && to > s->window ? to - s->window : 0;
        low = from < low ? from : low;
        queries[i] = (struct attention_query){ .q = q + i * s->h, .out = got + i * s->h, .from = from, .to = to };
    }
    int border = (low + 100) / ATTENTION_TILE * ATTENTION_TILE;
    attention_start(queries, QUERIES, s->h);
    attention_tiles(k, queries, QUERIES, s->h, runs, n_runs, low, border, 0.25f, s->cap);
    attention_tiles(k, queries, QUERIES, s->h, runs, n_runs, border, POSITIONS, 0.25f, s->cap);
    attention_end(queries, QUERIES, s->h);
    for (int i = 0; i < QUERIES; i++) {
        attention_head(kernels_find("generic", NULL), queries[i].q, s->h, runs, n_runs, queries[i].from, queries[i].to, 0.25f,
                       s->cap, want, scratch);
        CHECK(!memcmp(queries[i].out, want, (size_t)s->h * sizeof *want), "%s: query %d, head size %d, window %d, cap %g: not the same bits",
              kernels_name(k), i, s->h, s->window, (double)s->cap);
    }
}

static void test_many_queries(void **state)
{
    (void)state;
    static const struct shape shapes[] = {
        { 64, 0, 0, { 16, 16, 16, 16 } }, { 64, 50, 0, { 100, 3, 13, 16 } }, { 128, 0, 40, { 1, 7, 64, 16 } },
        { 256, 0, 0, { 333, 1, 1, 1 } },  { 8, 0, 0, { 16, 5, 11, 16 } },    { 80, 0, 100, { 16, 16, 16, 16 } },
        { 24, 3, 64, { 16, 5, 11, 16 } }, { 192, 0, 1, { 16, 16, 16, 16 } }, { 32, 0, 65, { 64, 64, 64, 64 } },
    };
    for (int i = 0; kernels_all()[i]; i++)
        for (size_t j = 0; kernels_supported(kernels_all()[i]) && j < ARRAY_LEN(shapes); j++)
            check_shape(kernels_all()[i], &shapes[j]);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_many_queries) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
