/* score.c - logits to numbers; the definition is vec_top2's, the same in every kernel set. */
#include "internal.h"

static struct top2 top_of(const float *x, int n)
{
    struct top2 t = { 0 };
    vec_top2(kernels_find(NULL, NULL), x, n, &t);
    return t;
}

double logits_log_sum(const float *x, int n)
{
    return top_of(x, n).log_sum;
}

int logits_top(const float *x, int n, float *first, float *second)
{
    struct top2 t = top_of(x, n);
    *first = t.first;
    *second = t.second;
    return t.index;
}
