/* attention.c - attention of many queries: how it begins and ends; the tiles are each set's. */
#include <math.h>
#include <string.h>

#include "set.h"

void attention_start(struct attention_query *queries, int n, int h)
{
    for (int i = 0; i < n; i++) {
        queries[i].max = -INFINITY;
        queries[i].sum = 0;
        memset(queries[i].out, 0, (size_t)h * sizeof(float));
    }
}

void attention_tiles(const struct kernels *k, struct attention_query *queries, int n, int h, const struct kv_run *runs,
                     int n_runs, int from, int to, float scale, float cap)
{
    k->vec.attention_tiles(queries, n, h, runs, n_runs, from, to, scale, cap);
}

void attention_end(struct attention_query *queries, int n, int h)
{
    for (int i = 0; i < n; i++)
        for (int c = 0; c < h; c++)
            queries[i].out[c] /= queries[i].sum;
}
