#include "clip.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- inputs ---- */

bool moments_open(struct moments *m, int cols, int width, double damp, struct error *err)
{
    *m = (struct moments){ .cols = cols, .width = width, .damp = damp };
    m->sum = mem_new((size_t)(cols / width) * (size_t)(width * width), sizeof *m->sum, err);
    return m->sum != NULL;
}

void moments_close(struct moments *m)
{
    free(m->sum);
    *m = (struct moments){ 0 };
}

struct adding {
    struct moments *m;
    const float *x;
    int rows;
    size_t ld;
};

/* The lower half only while adding; a row at a time, so that the sums keep the order of the tokens. */
static void add_group(void *ctx, int group, int thread)
{
    (void)thread;
    const struct adding *a = ctx;
    int n = a->m->width;
    double *sum = a->m->sum + (size_t)group * (size_t)(n * n);
    for (int r = 0; r < a->rows; r++) {
        const float *x = a->x + (size_t)r * a->ld + (size_t)group * (size_t)n;
        for (int i = 0; i < n; i++)
            for (int j = 0; j <= i; j++)
                sum[i * n + j] += (double)x[i] * (double)x[j];
    }
}

void moments_add(struct moments *m, struct pool *pool, const float *x, int rows, size_t ld)
{
    struct adding a = { m, x, rows, ld };
    pool_run(pool, m->cols / m->width, add_group, &a);
}

static double damping(const struct moments *m)
{
    double sum = 0;
    for (int c = 0; c < m->cols / m->width * m->width; c++)
        sum += m->sum[c / m->width * m->width * m->width + c % m->width * (m->width + 1)];
    return m->damp * sum / m->cols;
}

/* e' (H + damp) e from the lower half of H. */
static double output_error(const double *h, double damp, const double *e, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        double row = 0.5 * (h[i * n + i] + damp) * e[i];
        for (int j = 0; j < i; j++)
            row += h[i * n + j] * e[j];
        sum += 2 * row * e[i];
    }
    return sum;
}

/* ---- errors of blocks ---- */

struct judged {
    const struct moments *m;
    enum format_id format;
    const float *w, *col_scale;
    const uint8_t *blocks;
    double damp;
    double *error;              /* [rows]; NAN: out of memory */
};

static void judge_row(void *ctx, int r, int thread)
{
    (void)thread;
    struct judged *d = ctx;
    int cols = d->m->cols, n = d->m->width;
    const float *w = d->w + (size_t)r * (size_t)cols;
    float *back = malloc((size_t)cols * sizeof *back);
    double *e = malloc((size_t)cols * sizeof *e);
    d->error[r] = back && e ? 0 : NAN;
    if (back && e)
        formats[d->format].to_f32(d->blocks + r * format_row_bytes(d->format, cols), back, cols);
    for (int c = 0; back && e && c < cols; c++)
        e[c] = ((double)back[c] - (double)w[c]) / (d->col_scale ? (double)d->col_scale[c] : 1);
    for (int b = 0; back && e && b < cols / n; b++)
        d->error[r] += output_error(d->m->sum + (size_t)b * (size_t)(n * n), d->damp, e + b * n, n);
    free(back);
    free(e);
}

bool moments_error(const struct moments *m, enum format_id f, const float *w, const uint8_t *blocks, int rows,
                   const float *col_scale, struct pool *pool, double *error, struct error *err)
{
    struct judged d = { m, f, w, col_scale, blocks, damping(m), mem_new((size_t)rows, sizeof *d.error, err) };
    if (!d.error)
        return false;
    pool_run(pool, rows, judge_row, &d);
    double sum = 0;
    for (int r = 0; r < rows; r++)
        sum += d.error[r];
    free(d.error);
    *error += sum;
    return !isnan(sum) || fail(err, STATUS_MEMORY, "out of memory for rows of %d columns", m->cols);
}

/* ---- clipping ---- */

struct clip {
    const struct grid *grid;
    float *w;
    const float *importance, *col_scale;
    const struct moments *m;
    double damp;
    int64_t *cut;               /* [rows] */
};

static float largest(const float *w, int n)
{
    float most = 0;
    for (int i = 0; i < n; i++)
        most = fabsf(w[i]) > most ? fabsf(w[i]) : most;
    return most;
}

static void clamp_group(const float *w, int n, float bound, float *out)
{
    for (int i = 0; i < n; i++)
        out[i] = w[i] > bound ? bound : w[i] < -bound ? -bound : w[i];
}

static float bound_of(float most, int step)
{
    return most * (1 - (float)step / 20);
}

/* Output error of group b when the clamped row is rounded with scales s and m. */
static double rounded_error(const struct clip *c, int b, const float *w, const float *clamped, const float *s, const float *m)
{
    enum { WIDEST = 128 };
    int n = c->m->width, from = b * n;
    double e[WIDEST];
    for (int i = 0; i < n; i++) {
        int k = from + i;
        int code = grid_code(c->grid, clamped[k], s[k / BLOCK], m[k / BLOCK]);
        e[i] = (double)grid_value(c->grid, code, s[k / BLOCK], m[k / BLOCK]) - (double)w[k];
        if (c->col_scale)
            e[i] /= (double)c->col_scale[k];
    }
    return output_error(c->m->sum + (size_t)b * (size_t)(n * n), c->damp, e, n);
}

static void clip_row(void *ctx, int r, int thread)
{
    (void)thread;
    struct clip *c = ctx;
    int cols = c->m->cols, n = c->m->width, groups = cols / n, blocks = cols / BLOCK;
    float *w = c->w + (size_t)r * (size_t)cols;
    float *room = malloc(((size_t)cols + (size_t)groups + 2 * (size_t)blocks) * sizeof *room);
    double *best = malloc((size_t)groups * sizeof *best);
    uint8_t *step = calloc((size_t)groups, 1), *bytes = malloc((size_t)format_row_bytes(c->grid->format, cols));
    float *clamped = room, *most = clamped + cols, *s = most + groups, *m = s + blocks;
    for (int b = 0; room && b < groups; b++)
        most[b] = largest(w + b * n, n);
    for (int k = 0; room && best && step && bytes && k < CLIP_STEPS; k++) {
        for (int b = 0; b < groups; b++)
            clamp_group(w + b * n, n, bound_of(most[b], k), clamped + b * n);
        grid_fit(c->grid, clamped, c->importance, cols, s, m, bytes);
        for (int b = 0; b < groups; b++) {
            double error = rounded_error(c, b, w, clamped, s, m);
            if (k == 0 || error < best[b]) {
                best[b] = error;
                step[b] = (uint8_t)k;
            }
        }
    }
    for (int b = 0; room && best && step && bytes && b < groups; b++) {
        clamp_group(w + b * n, n, bound_of(most[b], step[b]), w + b * n);
        c->cut[r] += step[b] > 0;
    }
    free(room);
    free(best);
    free(step);
    free(bytes);
}

int64_t clip_rows(const struct grid *g, float *w, int rows, const float *importance, const struct moments *m,
                  const float *col_scale, struct pool *pool)
{
    assert(m->width == g->group);
    int64_t *cut = calloc((size_t)rows, sizeof *cut), sum = 0;
    struct clip c = { g, w, importance, col_scale, m, damping(m), cut };
    if (cut)
        pool_run(pool, rows, clip_row, &c);
    for (int r = 0; cut && r < rows; r++)
        sum += cut[r];
    free(cut);
    return sum;
}
