/* audit.c - the lattice of a whole model, by tensor class. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "job.h"
#include "lattice.h"

/* ---- classes: the name without its layer ---- */

static const char *class_of(const char *name)
{
    if (!str_starts(name, "blk."))
        return name;
    const char *dot = strchr(name + 4, '.');
    return dot ? dot + 1 : name;
}

static struct lattice_row *row_of(struct lattice_row *rows, int *n, const char *name, struct error *err)
{
    for (int i = 0; i < *n; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    rows[*n].name = str_dup(name, err);
    return rows[*n].name ? &rows[(*n)++] : NULL;
}

/* ---- sums of one row of weights, added up in row order afterwards ---- */

struct tally {
    int64_t blocks, zero, on_grid, by_k[16], bf16, f16, subnormal, changed;
    double power, stock, lattice;       /* sums of squares: weights, error of stock rounding, of lattice conversion */
};

struct audit {
    const struct tensor *t, *against;
    struct tally *tallies;      /* one a row of weights */
    float *scratch;             /* four rows a thread */
    uint8_t *blocks;            /* two rows of Q4_0 a thread */
    int64_t cols;
};

static double squares(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double e = (double)a[i] - (b ? (double)b[i] : 0);
        sum += e * e;
    }
    return sum;
}

static void count_block(struct tally *y, const struct lattice_block *b)
{
    y->blocks++;
    y->zero += b->zero;
    y->on_grid += b->on_grid;
    if (!b->on_grid || b->zero)
        return;
    y->by_k[b->k + 8]++;
    y->bf16 += b->scale_bf16;
    y->f16 += b->scale_f16;
    y->subnormal += fabs((b->lo + b->hi) / 2) < 0x1p-14;
}

/* How the tensor itself would convert. */
static void audit_row(struct audit *a, int64_t i, float *x, float *back, uint8_t *stock, uint8_t *kept)
{
    struct tally *y = &a->tallies[i];
    tensor_row(a->t, i / a->t->rows, i % a->t->rows, x);
    quantize_row(FORMAT_Q4_0, x, NULL, stock, a->cols);
    lattice_row_q4_0(x, a->t->format, kept, a->cols);
    for (int64_t c = 0; c < a->cols; c += 32) {
        struct lattice_block b;
        lattice_find(x + c, a->t->format, &b);
        count_block(y, &b);
        y->changed += b.on_grid && memcmp(stock + c / 32 * 18 + 2, kept + c / 32 * 18 + 2, 16) != 0;
    }
    y->power = squares(x, NULL, a->cols);
    formats[FORMAT_Q4_0].to_f32(stock, back, a->cols);
    y->stock = squares(x, back, a->cols);
    formats[FORMAT_Q4_0].to_f32(kept, back, a->cols);
    y->lattice = squares(x, back, a->cols);
}

static bool gives(const float *wanted, const float *got, enum format_id f)
{
    for (int i = 0; i < 32; i++) {
        float r = f == FORMAT_BF16 ? bf16_to_f32(f32_to_bf16(got[i])) : f == FORMAT_F16 ? f16_to_f32(f32_to_f16(got[i])) : got[i];
        if (r != wanted[i])
            return false;
    }
    return true;
}

/* How a quantized tensor stands to its unquantized twin: blocks that give it back to the last bit, blocks that stock
 * rounding of the twin would have written otherwise, and both errors. */
static void against_row(struct audit *a, int64_t i, float *x, float *back, uint8_t *stock, float *twin)
{
    struct tally *y = &a->tallies[i];
    int64_t m = i / a->t->rows, r = i % a->t->rows;
    tensor_row(a->t, m, r, x);
    tensor_row(a->against, m, r, twin);
    quantize_row(FORMAT_Q4_0, twin, NULL, stock, a->cols);
    formats[FORMAT_Q4_0].to_f32(stock, back, a->cols);
    for (int64_t c = 0; c < a->cols; c += 32) {
        struct lattice_block b;
        lattice_find(twin + c, a->against->format, &b);
        bool same = gives(twin + c, x + c, a->against->format);
        y->blocks++;
        y->zero += b.zero;
        y->on_grid += same;
        if (same && b.on_grid && !b.zero)
            y->by_k[b.k + 8]++;
        y->bf16 += b.scale_bf16;
        y->f16 += b.scale_f16;
        y->subnormal += b.on_grid && !b.zero && fabs((b.lo + b.hi) / 2) < 0x1p-14;
        y->changed += memcmp(back + c, x + c, 32 * sizeof *x) != 0;
    }
    y->power = squares(twin, NULL, a->cols);
    y->stock = squares(twin, back, a->cols);
    y->lattice = squares(twin, x, a->cols);
}

static void audit_job(void *ctx, int i, int thread)
{
    struct audit *a = ctx;
    float *x = a->scratch + 4 * thread * a->cols;
    uint8_t *blocks = a->blocks + 2 * thread * a->cols;
    if (a->against)
        against_row(a, i, x, x + a->cols, blocks, x + 2 * a->cols);
    else
        audit_row(a, i, x, x + a->cols, blocks, blocks + a->cols);
}

static void add_tally(struct tally *to, const struct tally *y)
{
    to->blocks += y->blocks;
    to->zero += y->zero;
    to->on_grid += y->on_grid;
    to->bf16 += y->bf16;
    to->f16 += y->f16;
    to->subnormal += y->subnormal;
    to->changed += y->changed;
    to->power += y->power;
    to->stock += y->stock;
    to->lattice += y->lattice;
    for (int k = 0; k < 16; k++)
        to->by_k[k] += y->by_k[k];
}

static bool audit_tensor(const struct tensor *t, const struct tensor *against, struct pool *pool, struct tally *sum, struct error *err)
{
    int64_t rows = t->rows * t->mats;
    int threads = pool_threads(pool);
    struct audit a = { .t = t, .against = against, .cols = t->cols };
    a.tallies = mem_new((size_t)rows, sizeof *a.tallies, err);
    a.scratch = mem_new_aligned((size_t)(4 * t->cols * threads), sizeof(float), err);
    a.blocks = mem_new((size_t)(2 * t->cols * threads), 1, err);
    bool ok = a.tallies && a.scratch && a.blocks;
    if (ok)
        pool_run(pool, (int)rows, audit_job, &a);
    for (int64_t r = 0; ok && r < rows; r++)
        add_tally(sum, &a.tallies[r]);
    free(a.tallies);
    free(a.scratch);
    free(a.blocks);
    return ok;
}

static void finish_row(struct lattice_row *r, const struct tally *y)
{
    r->blocks = y->blocks;
    r->zero = y->zero;
    r->on_grid = y->on_grid;
    memcpy(r->by_k, y->by_k, sizeof r->by_k);
    r->scale_bf16 = y->bf16;
    r->scale_f16 = y->f16;
    r->subnormal = y->subnormal;
    r->stock_rms = y->power > 0 ? sqrt(y->stock / y->power) : 0;
    r->lattice_rms = y->power > 0 ? sqrt(y->lattice / y->power) : 0;
    r->stock_changed = y->blocks ? (double)y->changed / (double)y->blocks : 0;
}

/* Only matrices whose rows divide into Q4_0 blocks; without a twin only unquantized ones. */
static bool wanted(const struct tensor *t, const struct model *against, const struct tensor **twin, struct error *err, bool *ok)
{
    *twin = NULL;
    *ok = true;
    if ((t->rows == 1 && t->mats == 1) || t->cols % 32 || strstr(t->name, "ffn_gate_inp"))
        return false;
    if (!against)
        return !formats[t->format].quantized;
    if (t->format != FORMAT_Q4_0)
        return false;
    *ok = model_tensor(against, t->name, t->rows, t->cols, t->mats, twin, err);
    return *ok;
}

bool lattice_audit(const struct model *m, const struct model *against, int threads, struct lattice_row **rows, int *n,
                   struct error *err)
{
    struct pool *pool = NULL;
    *n = 0;
    *rows = mem_new((size_t)m->n_tensors, sizeof **rows, err);
    struct tally *sums = mem_new((size_t)m->n_tensors, sizeof *sums, err);
    bool ok = *rows && sums && pool_open(&pool, threads, err);
    for (int i = 0; ok && i < m->n_tensors; i++) {
        const struct tensor *t = &m->tensors[i], *twin;
        if (!wanted(t, against, &twin, err, &ok))
            continue;
        struct lattice_row *r = row_of(*rows, n, class_of(t->name), err);
        ok = r && audit_tensor(t, twin, pool, &sums[r - *rows], err);
    }
    for (int i = 0; i < *n; i++)
        finish_row(&(*rows)[i], &sums[i]);
    if (ok && !*n)
        ok = fail(err, STATUS_INPUT, "%s has no %s matrix to look at; it holds %s", m->path, against ? "Q4_0" : "unquantized", m->recipe);
    if (!ok) {
        lattice_free(*rows, *n);
        *rows = NULL;
        *n = 0;
    }
    free(sums);
    pool_close(pool);
    return ok;
}

void lattice_free(struct lattice_row *rows, int n)
{
    for (int i = 0; rows && i < n; i++)
        free(rows[i].name);
    free(rows);
}
