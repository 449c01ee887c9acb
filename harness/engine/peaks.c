/* peaks.c - what this machine can do at best: the figures that shares of a peak are taken of. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/engine.h"
#include "engine/kernels/set.h"

/* All threads' areas together are more than caches of today hold: the figure is the memory's. */
enum { AREA_BYTES = 512 << 20, LEAST_AREA = 16 << 20, READ_STEP = 4 << 20 };

const char *const peak_names[PEAK_COUNT] = { "int8", "int16", "f32", "read" };

struct peak_meter {
    struct pool *pool;
    int threads;
    const struct peak_ops *ops;
    int rounds;
    uint8_t *area;
    size_t part_bytes;              /* of one thread */
    size_t at;                      /* in every part: windows of reading follow each other through it */
    double (*run)(int rounds);      /* NULL: read */
    double *done;                   /* [threads] */
};

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void peak_part(void *ctx, int i, int thread)
{
    struct peak_meter *m = ctx;
    (void)thread;
    m->done[i] = m->run ? m->run(m->rounds) : m->ops->read(m->area + (size_t)i * m->part_bytes + m->at, READ_STEP);
}

double peak_rate(struct peak_meter *m, enum peak what, int threads, int windows)
{
    double (*const runs[PEAK_COUNT])(int) = { m->ops->int8, m->ops->int16, m->ops->f32, NULL };
    double best = 0;
    pool_use(m->pool, threads > 0 && threads < m->threads ? threads : m->threads);
    threads = pool_threads(m->pool);
    m->run = runs[what];
    for (int w = 0; w < windows; w++) {
        double start = now_s(), done = 0;
        pool_run(m->pool, threads, peak_part, m);
        double elapsed = now_s() - start;
        for (int i = 0; i < threads; i++)
            done += m->done[i];
        best = done / elapsed > best ? done / elapsed : best;
        m->at = (m->at + READ_STEP) % m->part_bytes;
    }
    return best * 1e-9;
}

bool peak_open(struct peak_meter **out, int threads, const char *kernels, struct error *err)
{
    const struct kernels *k = kernels_find(kernels, err);
    struct peak_meter *m = k ? mem_new(1, sizeof *m, err) : NULL;
    *out = m;
    if (!m || !pool_open(&m->pool, threads, err))
        return peak_close(m), *out = NULL, false;
    uint64_t have = memory_available() / 8;     /* it is held while a model is measured that may need the rest */
    size_t n = (size_t)pool_threads(m->pool), part = (have && have < AREA_BYTES ? (size_t)have : AREA_BYTES) / n;
    m->threads = (int)n;
    m->ops = k->peak;
    m->rounds = k == &kernels_generic ? 2000 : 40000;
    m->part_bytes = (part > LEAST_AREA ? part : LEAST_AREA) / READ_STEP * READ_STEP;
    m->done = mem_new(n, sizeof *m->done, err);
    m->area = m->done ? kernels_large_pages(n * m->part_bytes, err) : NULL;
    if (!m->area)
        return peak_close(m), *out = NULL, false;
    memset(m->area, 1, n * m->part_bytes);
    return true;
}

void peak_close(struct peak_meter *m)
{
    if (!m)
        return;
    pool_close(m->pool);
    free(m->area);
    free(m->done);
    free(m);
}
