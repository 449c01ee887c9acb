/* kernels_avx2.c - sixteen lanes in two registers; AVX2, FMA, F16C. */
#include "set.h"

static bool never(void)
{
    return false;
}
const struct kernels kernels_avx2 = { .name = "avx2", .supported = never };
