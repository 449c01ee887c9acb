/* peaks.c - what this machine can do at best: the figures that shares of a peak are taken of. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/engine.h"
#include "engine/kernels/set.h"

enum { WINDOWS = 40, READ_BYTES = 64 << 20 };       /* a read area no cache of today holds for every thread */

struct peak_job {
    const struct peak_ops *ops;
    double (*run)(int rounds);      /* NULL: read */
    int rounds;
    uint8_t *area;
    double done[256];
};

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void peak_part(void *ctx, int i, int thread)
{
    struct peak_job *j = ctx;
    (void)thread;
    j->done[i] = j->run ? j->run(j->rounds) : j->ops->read(j->area + (size_t)i * READ_BYTES, READ_BYTES);
}

/* The best of several short windows: other work on the machine only ever makes one slower. */
static double best_rate(struct peak_job *j, int windows, struct pool *pool)
{
    double best = 0;
    for (int w = 0; w < windows; w++) {
        double start = now_s(), done = 0;
        pool_run(pool, pool_threads(pool), peak_part, j);
        double elapsed = now_s() - start;
        for (int i = 0; i < pool_threads(pool); i++)
            done += j->done[i];
        best = done / elapsed > best ? done / elapsed : best;
    }
    return best * 1e-9;
}

bool engine_measure_peaks(struct machine_peaks *out, int threads, const char *kernels, struct error *err)
{
    const struct kernels *k = kernels_find(kernels, err);
    struct pool *pool = NULL;
    *out = (struct machine_peaks){ 0 };
    if (!k || !pool_open(&pool, threads > 256 ? 256 : threads, err))
        return false;
    struct peak_job j = { .ops = k->peak, .rounds = k == &kernels_generic ? 2000 : 40000 };
    j.area = kernels_large_pages((size_t)pool_threads(pool) * READ_BYTES, err);
    bool ok = j.area != NULL && pool_threads(pool) <= 256;
    if (ok) {
        memset(j.area, 1, (size_t)pool_threads(pool) * READ_BYTES);
        j.run = k->peak->int8;
        out->int8_gops = best_rate(&j, WINDOWS, pool);
        j.run = k->peak->int16;
        out->int16_gops = best_rate(&j, WINDOWS, pool);
        j.run = k->peak->f32;
        out->f32_gflops = best_rate(&j, WINDOWS, pool);
        j.run = NULL;
        out->read_gbs = best_rate(&j, WINDOWS / 4, pool);
    }
    free(j.area);
    pool_close(pool);
    return ok;
}
