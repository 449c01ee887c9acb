/* collect.c - the imatrix of our own calibration pass: sums of squares of every matrix' inputs. */
#include <stdlib.h>
#include <string.h>

#include "calibrate.h"
#include "imatrix.h"

enum { COLUMNS = 256 };         /* of one job */

struct sums {
    struct imatrix_entry *entry;
    double *sum2;               /* [mats][cols] of the entry */
};
struct collector {
    struct job *job;
    struct imatrix *im;
    struct sums *all;
    size_t cap;
    struct error *err;
    bool ok;
    /* the call at hand */
    double *sum2;
    const float *x;
    int n;
    int64_t cols;
    size_t ld;
};

static void add_columns(void *ctx, int i, int thread)
{
    (void)thread;
    struct collector *c = ctx;
    int64_t from = (int64_t)i * COLUMNS, to = from + COLUMNS < c->cols ? from + COLUMNS : c->cols;
    for (int r = 0; r < c->n; r++) {
        const float *x = c->x + (size_t)r * c->ld;
        for (int64_t k = from; k < to; k++)
            c->sum2[k] += (double)x[k] * (double)x[k];
    }
}

/* The sums of tensor name, made on first sight. */
static struct sums *sums_of(struct collector *c, const char *name, int64_t cols)
{
    for (int i = 0; i < c->im->n; i++)
        if (strcmp(c->all[i].entry->name, name) == 0)
            return &c->all[i];
    const struct tensor *t = model_find(c->job->model, name);
    int at = c->im->n;
    if (!mem_grow(&c->all, &c->cap, (size_t)at + 1, sizeof *c->all, c->err))
        return NULL;
    int64_t mats = t ? t->mats : 1;
    struct imatrix_entry *e = imatrix_entry(c->im, name, cols, mats, c->err);
    c->all[at].sum2 = e ? mem_new((size_t)(cols * mats), sizeof(double), c->err) : NULL;
    for (int i = 0; i < c->im->n; i++)          /* the list may have moved */
        c->all[i].entry = &c->im->entries[i];
    return c->all[at].sum2 ? &c->all[at] : NULL;
}

static void see(void *ctx, const char *name, int expert, const float *x, int n, int64_t cols, size_t ld)
{
    struct collector *c = ctx;
    struct sums *s = c->ok ? sums_of(c, name, cols) : NULL;
    if (!s) {
        c->ok = false;
        return;
    }
    int mat = expert > 0 ? expert : 0;
    c->sum2 = s->sum2 + mat * cols;
    c->x = x;
    c->n = n;
    c->cols = cols;
    c->ld = ld;
    pool_run(c->job->pool, (int)((cols + COLUMNS - 1) / COLUMNS), add_columns, c);
    s->entry->counts[mat] += (float)n;
}

bool imatrix_collect(struct job *j, struct imatrix **out, struct error *err)
{
    struct pass s = { 0 };
    struct collector c = { .job = j, .err = err, .ok = true };
    bool ok = imatrix_new(&c.im, "calibration", err) && pass_open(&s, j, err);
    const struct engine_tap tap = { see, &c };
    for (int l = 0; ok && l < j->model->config.n_layers; l++) {
        job_progress(j, "calibrate", l, j->model->config.n_layers);
        ok = pass_layer(&s, l, &tap, true, "calibrate", err) && c.ok;
    }
    pass_close(&s);
    for (int i = 0; c.im && i < c.im->n; i++) {
        struct imatrix_entry *e = &c.im->entries[i];
        for (int64_t k = 0; k < e->cols * e->mats && ok; k++)
            e->sum2[k] = (float)c.all[i].sum2[k];
        free(c.all[i].sum2);
    }
    free(c.all);
    ok = ok && imatrix_finish(c.im, err);
    if (ok) {
        c.im->chunks = j->calibration->rows;
        c.im->chunk_size = j->calibration->tokens;
        *out = c.im;
    } else {
        imatrix_free(c.im);
    }
    return ok;
}
