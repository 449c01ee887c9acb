/* solve.c - one matrix: scales by diag(H), the GPTQ sweep in order of diag(H), coordinate descent.
 *
 * Minimise tr(E H E') over codes, E = W - W^.  With the columns in the order of the sweep and H + damping = R R',
 * R upper triangular, rounding column k after adding sum over j < k of e_j R_jk / R_kk makes the total error exactly
 * sum of (e_k R_kk)^2: the optimal brain surgeon update of GPTQ, and Babai's nearest plane (Frantar et al. 2023;
 * Chen et al. 2025), without forming an inverse.  R is the Cholesky factor of H with rows and columns reversed. */
#define SOLVE_SET solve_generic
#define SOLVE_LINEAR linear_generic
#include "solve_lanes.h"

#include <math.h>
#include <stdlib.h>

const struct solve_kernels *solve_best(void)
{
#if defined(__x86_64__)
    const struct linear_kernels *l = linear_best();
    if (l == &linear_avx512)
        return &solve_avx512;
    if (l == &linear_avx2)
        return &solve_avx2;
#endif
    return &solve_generic;
}

struct matrix {                 /* the work at hand */
    const struct grid *grid;
    const float *w;
    int rows, cols;
    const struct hessian *hessian;
    const struct solve_options *o;
    float *h;                   /* tiled [cols][cols], damped: for descent and losses */
    float *drift;               /* tiled like h, or NULL */
    float *importance;          /* [cols]: diagonal, never all 0 */
    double lambda;
    int *order;                 /* sweep position -> column */
    float *t;                   /* tiled [cols][cols]: unit factor; NULL when there is none */
    double *d;                  /* [cols] */
    bool factored;
    int64_t row_bytes;
    struct solution *out;
    double *loss, *plain, *power;       /* [rows] */
    int64_t *subnormal;         /* [rows] */
    bool *failed;               /* [groups]: out of memory */
};

static void matrix_free(struct matrix *x)
{
    free(x->h);
    free(x->drift);
    free(x->importance);
    free(x->order);
    free(x->t);
    free(x->d);
    free(x->loss);
    free(x->plain);
    free(x->power);
    free(x->subnormal);
    free(x->failed);
}

/* ---- order and factor ---- */

struct ranked {
    double h;
    int column;
};
static int by_importance(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    return x->h > y->h ? -1 : x->h < y->h ? 1 : x->column - y->column;
}

static bool make_order(struct matrix *x, struct error *err)
{
    struct ranked *r = mem_new((size_t)x->cols, sizeof *r, err);
    if (!r)
        return false;
    for (int i = 0; i < x->cols; i++)
        r[i] = (struct ranked){ x->hessian->h[(size_t)i * x->hessian->ld + (size_t)i], i };
    if (x->o->act_order)
        qsort(r, (size_t)x->cols, sizeof *r, by_importance);
    for (int i = 0; i < x->cols; i++)
        x->order[i] = r[i].column;
    free(r);
    return true;
}

/* H of the reversed order in a, damped; L of it gives R read backwards. */
static void reversed(const struct matrix *x, double *a, double lambda)
{
    const struct hessian *h = x->hessian;
    int n = x->cols;
    for (int i = 0; i < n; i++) {
        const double *row = h->h + (size_t)x->order[n - 1 - i] * h->ld;
        for (int j = 0; j < i; j++)
            a[(size_t)i * h->ld + (size_t)j] = (1 - x->o->shrink) * row[x->order[n - 1 - j]];
        a[(size_t)i * h->ld + (size_t)i] = row[x->order[n - 1 - i]] + lambda;
    }
}

/* DEPTH rows of t: R[k][j] = L[n-1-k][n-1-j], each column divided by its R[j][j]. */
struct unit_rows {
    struct matrix *x;
    const double *l;
};
static void unit_rows(void *ctx, int block, int thread)
{
    (void)thread;
    const struct unit_rows *u = ctx;
    int n = u->x->cols;
    for (int k = block * DEPTH; k < (block + 1) * DEPTH; k++) {
        const double *row = u->l + (size_t)(n - 1 - k) * u->x->hessian->ld;
        float *t = u->x->t + tiled_at(n, k, 0);
        for (int j = 0; j < n; j++)
            t[j / STRIP * DEPTH * STRIP + j % STRIP] = j > k ? (float)(row[n - 1 - j] / sqrt(u->x->d[j])) : 0;
    }
}

static bool unit_factor(struct matrix *x, const double *l, struct pool *pool, struct error *err)
{
    size_t n = (size_t)x->cols, ld = x->hessian->ld;
    struct unit_rows u = { x, l };
    x->t = mem_new_aligned(n * n, sizeof *x->t, err);
    if (!x->t)
        return false;
    for (size_t j = 0; j < n; j++) {
        double r = l[(n - 1 - j) * (ld + 1)];
        x->d[j] = r * r;
    }
    pool_run(pool, x->cols / DEPTH, unit_rows, &u);
    return true;
}

static double mean_diagonal(const struct hessian *h)
{
    double sum = 0;
    for (size_t i = 0; i < (size_t)h->n; i++)
        sum += h->h[i * h->ld + i];
    return sum / h->n;
}

/* How much of the mean diagonal is added to H where nothing is set.  The rule from tokens per column (0.15 columns /
 * tokens) is right for text like the calibration text; what a model knows by heart and the text does not show needs
 * more: 0.005 made the demonstration model's facts worse than plain rounding, 0.5 costs stories260K nothing outside
 * of its calibration text. */
static const double usual_damp = 0.5;

/* On failure twice as much, until as large as the mean itself. */
static bool factor(struct matrix *x, struct pool *pool, struct error *err)
{
    const struct hessian *h = x->hessian;
    double mean = mean_diagonal(h), damp = x->o->damp;
    if (damp <= 0)
        damp = usual_damp;
    x->out->damp = damp;
    x->lambda = damp * mean;
    if (x->o->algorithm != ALGORITHM_GPTQ || !(mean > 0))
        return true;
    double *a = mem_new_aligned(h->ld * h->ld, sizeof *a, err);
    if (!a || !make_order(x, err)) {
        free(a);
        return false;
    }
    bool ok = true;
    for (; ok && !x->factored && (damp <= 1 || damp == x->out->damp); damp *= 2) {
        struct error why;
        reversed(x, a, damp * mean);
        if (!cholesky(a, x->cols, h->ld, pool, &why))
            continue;
        x->factored = true;
        x->out->damp = damp;
        x->lambda = damp * mean;
        ok = unit_factor(x, a, pool, err);
    }
    free(a);
    return ok;
}

static bool prepare(struct matrix *x, struct error *err)
{
    size_t n = (size_t)x->cols, rows = (size_t)x->rows;
    x->importance = mem_new(n, sizeof(float), err);
    x->order = mem_new(n, sizeof(int), err);
    x->d = mem_new(n, sizeof(double), err);
    x->loss = mem_new(rows, sizeof(double), err);
    x->plain = mem_new(rows, sizeof(double), err);
    x->power = mem_new(rows, sizeof(double), err);
    x->subnormal = mem_new(rows, sizeof(int64_t), err);
    x->failed = mem_new(rows, sizeof(bool), err);
    x->row_bytes = format_row_bytes(x->grid->format, x->cols);
    x->out->bytes = mem_new(rows * (size_t)x->row_bytes, 1, err);
    return x->importance && x->order && x->d && x->loss && x->plain && x->power && x->subnormal &&
           x->failed && x->out->bytes;
}

static void fill_rows(void *ctx, int block, int thread)
{
    (void)thread;
    struct matrix *x = ctx;
    int n = x->cols;
    for (int i = block * DEPTH; i < (block + 1) * DEPTH; i++) {
        const double *from = x->hessian->h + (size_t)i * x->hessian->ld;
        float *to = x->h + tiled_at(n, i, 0);
        for (int j = 0; j < n; j++)
            to[j / STRIP * DEPTH * STRIP + j % STRIP] = (float)(i == j ? from[j] + x->lambda : (1 - x->o->shrink) * from[j]);
        x->importance[i] = (float)from[i];
    }
}

static bool fill_h(struct matrix *x, struct pool *pool, struct error *err)
{
    bool any = false;
    x->h = mem_new_aligned((size_t)x->cols * (size_t)x->cols, sizeof *x->h, err);
    if (!x->h)
        return false;
    pool_run(pool, x->cols / DEPTH, fill_rows, x);
    for (int i = 0; i < x->cols; i++)
        any |= x->importance[i] > 0;
    for (int i = 0; i < x->cols && !any; i++)
        x->importance[i] = 1;
    return true;
}

static void fill_drift_rows(void *ctx, int block, int thread)
{
    (void)thread;
    struct matrix *x = ctx;
    for (int i = block * DEPTH; i < (block + 1) * DEPTH; i++) {
        const double *from = x->hessian->drift + (size_t)i * x->hessian->ld;
        float *to = x->drift + tiled_at(x->cols, i, 0);
        for (int j = 0; j < x->cols; j++)
            to[j / STRIP * DEPTH * STRIP + j % STRIP] = (float)from[j];
    }
}

static bool fill_drift(struct matrix *x, struct pool *pool, struct error *err)
{
    if (!x->hessian->drift || !x->o->drift || !(x->lambda > 0))
        return true;
    x->drift = mem_new_aligned((size_t)x->cols * (size_t)x->cols, sizeof *x->drift, err);
    if (x->drift)
        pool_run(pool, x->cols / DEPTH, fill_drift_rows, x);
    return x->drift != NULL;
}

/* ---- WIDE rows ---- */

struct rows {                   /* work space of one group; arrays are [..][WIDE] */
    float *w, *swept, *codes, *value, *gradient, *s, *inv, *m, *line;
    uint8_t *bytes;             /* headers of the rows' blocks */
};

static bool rows_open(struct rows *r, const struct matrix *x)
{
    size_t n = (size_t)x->cols * WIDE, b = (size_t)(x->cols / BLOCK) * WIDE;
    struct error err;
    float *all = mem_new_aligned(6 * n + 3 * b, sizeof *all, &err);
    r->bytes = all ? mem_new((size_t)x->row_bytes * WIDE, 1, &err) : NULL;
    if (!r->bytes) {
        free(all);
        return false;
    }
    r->w = all;
    r->swept = all + n;
    r->codes = all + 2 * n;
    r->value = all + 3 * n;
    r->gradient = all + 4 * n;
    r->line = all + 5 * n;
    r->s = all + 6 * n;
    r->inv = r->s + b;
    r->m = r->inv + b;
    return true;
}

/* Rows past the end repeat the last one; their results are dropped. */
static void load_rows(const struct matrix *x, struct rows *r, int first)
{
    for (int v = 0; v < WIDE; v++) {
        int row = first + v < x->rows ? first + v : x->rows - 1;
        const float *w = x->w + (size_t)row * (size_t)x->cols;
        for (int c = 0; c < x->cols; c++)
            r->w[(size_t)c * WIDE + (size_t)v] = w[c];
    }
}

/* sum[v] = a . b of each lane */
static void lane_dots(int n, const float *a, const float *b, double *sum)
{
    for (int v = 0; v < WIDE; v++)
        sum[v] = 0;
    for (int i = 0; i < n; i++)
        for (int v = 0; v < WIDE; v++)
            sum[v] += (double)a[(size_t)i * WIDE + (size_t)v] * (double)b[(size_t)i * WIDE + (size_t)v];
}

/* What is left is a ten-thousandth of what was there at first. */
static bool lanes_near(const double *first, const double *size)
{
    for (int v = 0; v < WIDE; v++)
        if (size[v] > 1e-8 * first[v])
            return false;
    return true;
}

/* w += w D (H + lambda)^-1: conjugate gradients, preconditioned by the diagonal.  What is large against lambda is
 * found in the first steps, so that few are enough. */
static void aim_rows(const struct matrix *x, struct rows *r)
{
    enum { STEPS = 24 };
    const struct linear_kernels *l = linear_best();
    int n = x->cols, blocks = n / DEPTH, strips = n / STRIP;
    size_t all = (size_t)n * WIDE, step = (size_t)n * DEPTH;
    float *left = r->swept, *way = r->value, *h_way = r->gradient, *scaled = r->codes;
    double first[WIDE], size[WIDE], curve[WIDE], next[WIDE];
    memset(left, 0, all * sizeof *left);
    l->update(strips, blocks, x->drift, step, r->w, left);
    for (int turn = 0; turn <= STEPS; turn++) {
        for (int i = 0; i < n; i++)
            for (int v = 0; v < WIDE; v++)
                scaled[i * WIDE + v] = left[i * WIDE + v] / x->h[tiled_at(n, i, i)];
        lane_dots(n, left, scaled, next);
        if (turn == 0)
            memcpy(first, next, sizeof first);
        else if (lanes_near(first, next))
            break;
        for (int v = 0; v < WIDE; v++)
            curve[v] = turn && size[v] > 0 ? next[v] / size[v] : 0;
        for (size_t i = 0; i < all; i++)
            way[i] = turn ? scaled[i] + (float)curve[i % WIDE] * way[i] : scaled[i];
        memcpy(size, next, sizeof size);
        memset(h_way, 0, all * sizeof *h_way);
        l->update(strips, blocks, x->h, step, way, h_way);
        lane_dots(n, way, h_way, curve);
        for (int v = 0; v < WIDE; v++)
            curve[v] = curve[v] > 0 ? size[v] / curve[v] : 0;
        for (size_t i = 0; i < all; i++) {
            r->w[i] += (float)curve[i % WIDE] * way[i];
            left[i] -= (float)curve[i % WIDE] * h_way[i];
        }
    }
}

static void fit_rows(const struct matrix *x, struct rows *r)
{
    int nb = x->cols / BLOCK;
    float *w = r->line, *s = w + x->cols, *m = s + nb;
    for (int v = 0; v < WIDE; v++) {
        for (int c = 0; c < x->cols; c++)
            w[c] = r->w[(size_t)c * WIDE + (size_t)v];
        grid_fit(x->grid, w, x->importance, x->cols, s, m, r->bytes + v * x->row_bytes);
        for (int b = 0; b < nb; b++) {
            r->s[b * WIDE + v] = s[b];
            r->inv[b * WIDE + v] = s[b] != 0 ? 1 / s[b] : 0;
            r->m[b * WIDE + v] = m[b];
        }
    }
}

/* Plain nearest codes: what a sweep does when errors go nowhere. */
static void round_rows(const struct matrix *x, struct rows *r)
{
    for (int c = 0; c < x->cols; c++)
        for (int v = 0; v < WIDE; v += VF_LANES) {
            size_t at = (size_t)c * WIDE + (size_t)v, b = (size_t)(c / BLOCK) * WIDE + (size_t)v;
            vf q;
            vf_store(r->codes + at, nearest_code(x->grid, vf_load(r->w + at), vf_load(r->s + b), vf_load(r->inv + b), vf_load(r->m + b), &q));
        }
}

/* e' H e of each lane without the damping; gradient holds (H + lambda) e, value - w is e. */
static void rows_loss(const struct matrix *x, const struct rows *r, double *loss)
{
    for (int v = 0; v < WIDE; v++)
        loss[v] = 0;
    for (size_t i = 0; i < (size_t)x->cols * WIDE; i++) {
        double e = (double)r->value[i] - (double)r->w[i];
        loss[i % WIDE] += e * ((double)r->gradient[i] - x->lambda * e);
    }
}

static struct descent descent_of(const struct matrix *x, struct rows *r, int passes, int searches)
{
    return (struct descent){ .grid = x->grid, .n = x->cols, .passes = passes, .searches = searches, .h = x->h, .w = r->w,
                             .s = r->s, .inv = r->inv, .m = r->m, .codes = r->codes, .value = r->value, .gradient = r->gradient };
}

/* w' H w = sum over spans of columns of w_s' (H_ss w_s + 2 sum over earlier spans of H_sr w_r): half of H is enough. */
static void rows_power(const struct matrix *x, struct rows *r, double *power)
{
    const struct linear_kernels *l = linear_best();
    size_t step = (size_t)x->cols * DEPTH;
    memset(r->gradient, 0, (size_t)x->cols * WIDE * sizeof *r->gradient);
    for (int v = 0; v < WIDE; v++)
        power[v] = 0;
    for (int from = 0, to; from < x->cols; from = to) {
        float own[SWEEP_BLOCK * WIDE] = { 0 }, *w = r->w + (size_t)from * WIDE, *earlier = r->gradient + (size_t)from * WIDE;
        to = from + SWEEP_BLOCK < x->cols ? from + SWEEP_BLOCK : x->cols;
        l->update((to - from) / STRIP, (to - from) / DEPTH, x->h + tiled_at(x->cols, from, from), step, w, own);
        l->update((x->cols - to) / STRIP, (to - from) / DEPTH, x->h + tiled_at(x->cols, from, to), step, w,
                  r->gradient + (size_t)to * WIDE);
        for (int i = 0; i < (to - from) * WIDE; i++)
            power[i % WIDE] += (double)w[i] * ((double)own[i] + 2 * (double)earlier[i] - x->lambda * (double)w[i]);
    }
}

static void sweep_rows(const struct matrix *x, struct rows *r)
{
    double loss[WIDE] = { 0 };
    for (int k = 0; k < x->cols; k++)
        memcpy(r->swept + (size_t)k * WIDE, r->w + (size_t)x->order[k] * WIDE, WIDE * sizeof *r->w);
    struct sweep s = { x->grid, x->cols, x->t, x->d, x->order, r->s, r->inv, r->m, r->w, r->swept, r->codes, loss };
    solve_best()->sweep(&s);
}

static void store_rows(const struct matrix *x, struct rows *r, int first)
{
    int8_t *codes = (int8_t *)r->line;
    float *s = r->line + x->cols / 4 + 1;
    for (int v = 0; v < WIDE && first + v < x->rows; v++) {
        for (int c = 0; c < x->cols; c++)
            codes[c] = (int8_t)r->codes[(size_t)c * WIDE + (size_t)v];
        for (int b = 0; b < x->cols / BLOCK; b++) {
            s[b] = r->s[b * WIDE + v];
            x->subnormal[first + v] += s[b] != 0 && fabsf(s[b]) < 0x1p-14f && x->grid->format != FORMAT_Q4_K;
        }
        uint8_t *bytes = r->bytes + v * x->row_bytes;
        grid_put(x->grid, codes, s, x->cols, bytes);
        memcpy(x->out->bytes + (size_t)(first + v) * (size_t)x->row_bytes, bytes, (size_t)x->row_bytes);
    }
}

static void solve_group(void *ctx, int group, int thread)
{
    (void)thread;
    struct matrix *x = ctx;
    struct rows r;
    int first = group * WIDE;
    if (!rows_open(&r, x)) {
        x->failed[group] = true;
        return;
    }
    double power[WIDE], plain[WIDE], loss[WIDE];
    load_rows(x, &r, first);
    if (x->drift)
        aim_rows(x, &r);
    fit_rows(x, &r);
    rows_power(x, &r, power);
    round_rows(x, &r);
    for (int v = 0; v < WIDE; v++)
        plain[v] = 0;
    if (x->o->plain_too) {
        struct descent look = descent_of(x, &r, 0, 0);
        solve_best()->descend(&look);
        rows_loss(x, &r, plain);
    }
    if (x->factored)
        sweep_rows(x, &r);
    int passes = x->o->algorithm == ALGORITHM_RTN ? 0 : x->factored ? x->o->passes : x->o->passes > 0 ? 12 : 0;
    struct descent down = descent_of(x, &r, passes, x->o->algorithm == ALGORITHM_RTN ? 0 : x->o->searches);
    solve_best()->descend(&down);
    rows_loss(x, &r, loss);
    for (int v = 0; v < WIDE && first + v < x->rows; v++) {
        x->power[first + v] = power[v];
        x->plain[first + v] = plain[v];
        x->loss[first + v] = loss[v];
    }
    store_rows(x, &r, first);
    free(r.w);
    free(r.bytes);
}

bool solve_matrix(const struct grid *g, const float *w, int rows, int cols, const struct hessian *h,
                  const struct solve_options *o, struct pool *pool, struct solution *out, struct error *err)
{
    *out = (struct solution){ 0 };
    struct matrix x = { .grid = g, .w = w, .rows = rows, .cols = cols, .hessian = h, .o = o, .out = out };
    bool ok = prepare(&x, err) && factor(&x, pool, err) && fill_h(&x, pool, err) && fill_drift(&x, pool, err);
    if (ok)
        pool_run(pool, (rows + WIDE - 1) / WIDE, solve_group, &x);
    double loss = 0, plain = 0, power = 0;
    for (int r = 0; ok && r < rows; r++) {
        if (x.failed[r / WIDE])
            ok = fail(err, STATUS_MEMORY, "out of memory for %d columns of %d rows", cols, WIDE);
        loss += x.loss[r];
        plain += x.plain[r];
        power += x.power[r];
        out->subnormal += x.subnormal[r];
    }
    out->factored = x.factored;
    out->loss = power > 0 ? loss / power : 0;
    out->plain_loss = power > 0 ? plain / power : 0;
    matrix_free(&x);
    if (!ok) {
        free(out->bytes);
        out->bytes = NULL;
    }
    return ok;
}
