#define LINEAR_SET linear_generic
#include "linear_lanes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const struct linear_kernels *linear_best(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return &linear_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &linear_avx2;
#endif
    return &linear_generic;
}

/* Job number -> the tile (i, j), i <= j, of a triangle. */
static void triangle(int job, int *i, int *j)
{
    *j = (int)((sqrt(8.0 * job + 1) - 1) / 2);
    while ((*j + 1) * (*j + 2) / 2 <= job)
        ++*j;
    while (*j * (*j + 1) / 2 > job)
        --*j;
    *i = job - *j * (*j + 1) / 2;
}

/* ---- sum of x x' ---- */

bool hessian_open(struct hessian *h, int n, struct error *err)
{
    *h = (struct hessian){ .n = n, .ld = (size_t)(n + PANEL - 1) / PANEL * PANEL };
    h->h = mem_new_aligned(h->ld * h->ld, sizeof *h->h, err);
    h->packed = h->h ? mem_new_aligned(h->ld * CHUNK * CHUNKS, sizeof *h->packed, err) : NULL;
    if (h->packed)
        return true;
    hessian_close(h);
    return false;
}

void hessian_close(struct hessian *h)
{
    free(h->h);
    free(h->packed);
    free(h->drift);
    free(h->packed_drift);
    *h = (struct hessian){ 0 };
}

struct add {
    struct hessian *h;
    const float *x;
    int rows;
    size_t ld;
};

static void pack_panel(void *ctx, int p, int thread)
{
    (void)thread;
    const struct add *a = ctx;
    int left = a->h->n - p * PANEL, width = left < PANEL ? left : PANEL;
    float *to = a->h->packed + (size_t)p * PANEL * CHUNK * CHUNKS;
    for (int t = 0; t < a->rows; t++, to += PANEL) {
        memcpy(to, a->x + (size_t)t * a->ld + (size_t)p * PANEL, (size_t)width * sizeof *to);
        memset(to + width, 0, (size_t)(PANEL - width) * sizeof *to);
    }
}

static void add_tile(void *ctx, int job, int thread)
{
    (void)thread;
    const struct add *a = ctx;
    int i, j;
    triangle(job, &i, &j);
    const size_t panel = (size_t)PANEL * CHUNK * CHUNKS;
    const float *x = a->h->packed;
    linear_best()->syrk(a->rows, x + (size_t)i * panel, x + (size_t)j * panel, a->h->h + (size_t)i * PANEL * a->h->ld + (size_t)j * PANEL, a->h->ld);
}

void hessian_add(struct hessian *h, struct pool *pool, const float *x, int rows, size_t ld)
{
    enum { ROWS = CHUNK * CHUNKS };
    int panels = (int)(h->ld / PANEL);
    for (int at = 0; at < rows; at += ROWS) {
        struct add a = { h, x + (size_t)at * ld, rows - at < ROWS ? rows - at : ROWS, ld };
        pool_run(pool, panels, pack_panel, &a);
        pool_run(pool, panels * (panels + 1) / 2, add_tile, &a);
    }
    h->tokens += rows;
}

bool hessian_open_drift(struct hessian *h, struct error *err)
{
    h->drift = mem_new_aligned(h->ld * h->ld, sizeof *h->drift, err);
    h->packed_drift = h->drift ? mem_new_aligned(h->ld * CHUNK * CHUNKS, sizeof *h->packed_drift, err) : NULL;
    return h->packed_drift != NULL;
}

struct add_drift {
    struct add add;
    const float *want;
    size_t want_ld;
};

static void pack_drift(void *ctx, int p, int thread)
{
    const struct add_drift *d = ctx;
    const struct add *a = &d->add;
    int left = a->h->n - p * PANEL, width = left < PANEL ? left : PANEL;
    size_t at = (size_t)p * PANEL;
    float *to = a->h->packed_drift + at * CHUNK * CHUNKS;
    for (int t = 0; t < a->rows; t++, to += PANEL)
        for (int c = 0; c < PANEL; c++)
            to[c] = c < width ? d->want[(size_t)t * d->want_ld + at + (size_t)c] - a->x[(size_t)t * a->ld + at + (size_t)c] : 0;
    pack_panel(ctx, p, thread);
}

static void add_drift_tile(void *ctx, int job, int thread)
{
    (void)thread;
    const struct hessian *h = ((struct add_drift *)ctx)->add.h;
    size_t panels = h->ld / PANEL, i = (size_t)job / panels, j = (size_t)job % panels;
    linear_best()->syrk(((struct add_drift *)ctx)->add.rows, h->packed_drift + i * PANEL * CHUNK * CHUNKS,
                        h->packed + j * PANEL * CHUNK * CHUNKS, h->drift + (i * h->ld + j) * PANEL, h->ld);
}

void hessian_add_drift(struct hessian *h, struct pool *pool, const float *x, size_t ld, const float *want, size_t want_ld, int rows)
{
    enum { ROWS = CHUNK * CHUNKS };
    int panels = (int)(h->ld / PANEL);
    for (int at = 0; at < rows; at += ROWS) {
        struct add_drift d = { { h, x + (size_t)at * ld, rows - at < ROWS ? rows - at : ROWS, ld }, want + (size_t)at * want_ld, want_ld };
        pool_run(pool, panels, pack_drift, &d);
        pool_run(pool, panels * panels, add_drift_tile, &d);
    }
}

bool hessian_finish(struct hessian *h)
{
    double scale = h->tokens ? 1.0 / (double)h->tokens : 0;
    bool finite = true;
    for (size_t i = 0; h->drift && i < (size_t)h->n * h->ld; i++) {
        h->drift[i] *= scale;
        finite &= isfinite(h->drift[i]) != 0;
    }
    for (size_t i0 = 0; i0 < h->ld; i0 += PANEL)                /* tile by tile, so that columns are written in the cache */
        for (size_t j0 = i0; j0 < h->ld; j0 += PANEL)
            for (size_t i = i0; i < i0 + PANEL; i++)
                for (size_t j = j0 > i ? j0 : i; j < j0 + PANEL; j++) {
                    double v = h->h[i * h->ld + j] * scale;
                    finite &= isfinite(v) != 0;
                    h->h[i * h->ld + j] = h->h[j * h->ld + i] = v;
                }
    return finite;
}

/* ---- Cholesky, by panels: factor a diagonal tile, solve the panel below it, downdate what is left ---- */

struct factor {
    double *a;
    int n;
    size_t ld;
    int k;                      /* first column of the panel at hand */
    double *packed;             /* the panel below the diagonal tile, transposed: tiles [PANEL k][PANEL i] */
};

static bool factor_tile(double *a, int n, size_t ld)
{
    for (int j = 0; j < n; j++) {
        double d = a[(size_t)j * ld + (size_t)j];
        for (int k = 0; k < j; k++)
            d -= a[(size_t)j * ld + (size_t)k] * a[(size_t)j * ld + (size_t)k];
        if (!(d > 0) || !isfinite(d))
            return false;
        d = sqrt(d);
        a[(size_t)j * ld + (size_t)j] = d;
        for (int i = j + 1; i < n; i++) {
            double s = a[(size_t)i * ld + (size_t)j];
            for (int k = 0; k < j; k++)
                s -= a[(size_t)i * ld + (size_t)k] * a[(size_t)j * ld + (size_t)k];
            a[(size_t)i * ld + (size_t)j] = s / d;
        }
    }
    return true;
}

/* Rows of one tile below: X L' = A, worked with the tile transposed so that its rows are lanes. */
static void solve_tile(void *ctx, int tile, int thread)
{
    (void)thread;
    const struct factor *f = ctx;
    int first = f->k + PANEL * (tile + 1), rows = f->n - first < PANEL ? f->n - first : PANEL;
    double *t = f->packed + (size_t)tile * PANEL * PANEL;
    for (int k = 0; k < PANEL; k++)
        for (int i = 0; i < PANEL; i++)
            t[k * PANEL + i] = i < rows ? f->a[(size_t)(first + i) * f->ld + (size_t)(f->k + k)] : 0;
    for (int k = 0; k < PANEL; k++) {
        const double *l = f->a + (size_t)(f->k + k) * f->ld + (size_t)f->k;
        for (int i = 0; i < PANEL; i += VD_LANES) {
            vd sum = vd_load(t + k * PANEL + i);
            for (int p = 0; p < k; p++)
                sum = sum - vd_load(t + p * PANEL + i) * vd_set(l[p]);
            vd_store(t + k * PANEL + i, sum / vd_set(l[k]));
        }
    }
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < PANEL; k++)
            f->a[(size_t)(first + i) * f->ld + (size_t)(f->k + k)] = t[k * PANEL + i];
}

static void downdate_tile(void *ctx, int job, int thread)
{
    (void)thread;
    const struct factor *f = ctx;
    int i, j;
    triangle(job, &i, &j);      /* i <= j: tile row j, tile column i of the lower half */
    size_t row = (size_t)(f->k + PANEL * (j + 1)), col = (size_t)(f->k + PANEL * (i + 1));
    linear_best()->downdate(PANEL, f->packed + (size_t)j * PANEL * PANEL, f->packed + (size_t)i * PANEL * PANEL,
                            f->a + row * f->ld + col, f->ld);
}

bool cholesky(double *a, int n, size_t ld, struct pool *pool, struct error *err)
{
    struct factor f = { a, n, ld, 0, mem_new_aligned(ld * PANEL, sizeof(double), err) };
    bool ok = f.packed != NULL;
    for (f.k = 0; ok && f.k < n; f.k += PANEL) {
        int width = n - f.k < PANEL ? n - f.k : PANEL;
        if (!factor_tile(a + (size_t)f.k * ld + (size_t)f.k, width, ld)) {
            ok = fail(err, STATUS_INPUT, "not positive definite at column %d of %d", f.k, n);
            break;
        }
        int below = (n - f.k - 1) / PANEL;
        if (f.k + PANEL < n) {
            pool_run(pool, below, solve_tile, &f);
            pool_run(pool, below * (below + 1) / 2, downdate_tile, &f);
        }
    }
    free(f.packed);
    return ok;
}
