/* kernels.c - the table of sets, and what every set shares: entry points, activations, rope tables. */
#define _DEFAULT_SOURCE     /* madvise */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "set.h"

const char *const act_mode_names[ACT_COUNT] = { "i16", "f32", "q8" };

static const struct kernels *const sets[] = { &kernels_avx512, &kernels_avx2, &kernels_neon_dot, &kernels_neon,
                                            &kernels_generic, NULL };

const struct kernels *const *kernels_all(void)
{
    return sets;
}

bool kernels_supported(const struct kernels *k)
{
    return k->supported();
}

const char *kernels_name(const struct kernels *k)
{
    return k->name;
}

const struct kernels *kernels_find(const char *name, struct error *err)
{
    for (int i = 0; sets[i]; i++)
        if (name ? !strcmp(sets[i]->name, name) : sets[i]->supported()) {
            if (sets[i]->supported())
                return sets[i];
            fail(err, STATUS_UNSUPPORTED, "kernels '%s': this CPU lacks the instructions", name);
            return NULL;
        }
    char known[128] = "";
    for (int i = 0; sets[i]; i++)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", sets[i]->name);
    fail(err, STATUS_USAGE, "kernels '%s' are unknown; there are: %s", name ? name : "", known);
    return NULL;
}

const char *const *engine_kernel_sets(void)
{
    static const char *names[ARRAY_LEN(sets)];
    for (size_t i = 0; i < ARRAY_LEN(sets); i++)
        names[i] = sets[i] ? sets[i]->name : NULL;
    return names;
}

bool engine_kernel_supported(const char *name)
{
    return name && kernels_find(name, NULL);
}

/* ---- memory ---- */

/* Streaming gigabytes through 4 KiB pages is bound by address translation; ask for large ones where there are. */
void *kernels_large_pages(size_t bytes, struct error *err)
{
    enum { HUGE_PAGE = 2 << 20 };
    void *p = NULL;
    if (posix_memalign(&p, bytes >= HUGE_PAGE ? HUGE_PAGE : 64, bytes) != 0) {
        fail(err, STATUS_MEMORY, "out of memory: %zu bytes", bytes);
        return NULL;
    }
#ifdef MADV_HUGEPAGE
    if (bytes >= HUGE_PAGE)
        madvise(p, bytes, MADV_HUGEPAGE);
#endif
    return p;
}

/* ---- activations ---- */

/* Room for the largest form of a row: its f32 elements in whole parts of a float product, or rounded codes (2 bytes each)
 * with scale and sums (20 bytes a block of 32) - both at most 4 bytes an element. */
bool acts_open(struct acts *a, int max_rows, int max_cols, enum act_mode mode, struct error *err)
{
    *a = (struct acts){ .mode = mode, .max_rows = max_rows, .max_cols = max_cols };
    size_t padded = ((size_t)max_cols + FLOAT_PART - 1) / FLOAT_PART * FLOAT_PART;
    a->packed_bytes = (size_t)max_rows * padded * sizeof(float) + 64;
    a->packed = kernels_large_pages(a->packed_bytes, err);
    return a->packed || fail_in(err, "activations of %d x %d", max_rows, max_cols);
}

void acts_close(struct acts *a)
{
    free(a->packed);
    *a = (struct acts){ 0 };
}

void acts_set(struct acts *a, const float *x, size_t ld, int rows, int cols)
{
    assert(rows <= a->max_rows && cols <= a->max_cols);
    a->f32 = x;
    a->ld = ld;
    a->rows = rows;
    a->cols = cols;
    a->packed_kind = 0;
}

enum rounding rounding_of(enum act_mode mode, enum format_id format)
{
    const struct format *f = &formats[format];
    if (mode == ACT_F32 || f->int_block == 0)
        return ROUND_NONE;
    if (mode == ACT_I16)
        return ROUND_I16;
    return f->block == 256 ? ROUND_Q8_K : ROUND_Q8_0;
}

/* ---- matrices ---- */

bool matrix_open(struct matrix *w, const struct kernels *k, const struct tensor *t, enum act_mode mode,
                 bool in_place, struct pool *pool, struct error *err)
{
    *w = (struct matrix){ .t = t, .k = k, .mode = mode };
    if (rounding_of(mode, t->format) != ROUND_NONE && t->cols % 32 != 0)
        return fail(err, STATUS_UNSUPPORTED, "%s: rows of %lld are not whole blocks of 32", t->name, (long long)t->cols);
    return in_place || !k->pack || k->pack(w, pool, err) || fail_in(err, "%s", t->name);
}

void matrix_close(struct matrix *w)
{
    free(w->packed);
    *w = (struct matrix){ 0 };
}

static struct product product_of(const struct matrix *w, struct acts *a, int n, struct pool *pool)
{
    assert(a->cols == w->t->cols && a->mode == w->mode && n <= a->max_rows);
    return (struct product){ .w = w, .a = a, .n = n, .pool = pool, .rounding = rounding_of(w->mode, w->t->format) };
}

void matrix_apply(const struct matrix *w, int mat, struct acts *a, const int *row_list, int n, float *y, size_t ldy,
                  struct pool *pool)
{
    struct product p = product_of(w, a, n, pool);
    assert(mat < w->t->mats);
    p.mat = mat;
    p.row_list = row_list;
    p.y = y;
    p.ldy = ldy;
    if (n > 0)
        w->k->apply(&p);
}

void matrix_apply_each(const struct matrix_out *out, int n_out, struct acts *a, int n, struct pool *pool)
{
    const struct kernels *k = out->w->k;
    struct product p[MATRICES_AT_ONCE] = { { 0 } };
    assert(n_out <= MATRICES_AT_ONCE);
    if (n <= 0)
        return;
    for (int i = 0; i < n_out; i++) {
        p[i] = product_of(out[i].w, a, n, pool);
        p[i].y = out[i].y;
        p[i].ldy = out[i].ldy;
    }
    if (k->apply_each)
        k->apply_each(p, n_out);
    for (int i = 0; i < n_out && !k->apply_each; i++)
        k->apply(&p[i]);
}

bool matrix_apply_glu(const struct matrix *gate, const struct matrix *up, struct acts *a, int n, enum activation act,
                      const struct matrix *next, struct acts *to, struct pool *pool)
{
    if (n <= 0 || !gate->k->apply_glu)
        return false;
    acts_set(to, NULL, 0, n, (int)gate->t->rows);
    struct product p[2] = { product_of(gate, a, n, pool), product_of(up, a, n, pool) }, q = product_of(next, to, n, pool);
    return gate->k->apply_glu(p, act, &q);
}

/* ---- vectors ---- */

void vec_rms_norm(const struct kernels *k, const float *x, const float *w, float eps, float *y, int n)
{
    k->vec.scale_by(x, 1.0f / sqrtf(k->vec.squares(x, n) / (float)n + eps), w, y, n);
}

void vec_add(const struct kernels *k, float *y, const float *x, int n)
{
    k->vec.add(y, x, n);
}

void vec_scale(const struct kernels *k, float *y, float s, int n)
{
    k->vec.scale(y, s, n);
}

void vec_glu(const struct kernels *k, enum activation act, const float *gate, const float *up, float *y, int n)
{
    (act == ACTIVATION_SILU ? k->vec.silu_mul : k->vec.gelu_mul)(gate, up, y, n);
}

void vec_softcap(const struct kernels *k, float *y, float cap, int n)
{
    k->vec.softcap(y, cap, n);
}

void vec_exp(const struct kernels *k, const float *x, float *y, int n)
{
    k->vec.exp(x, y, n);
}

void vec_tanh(const struct kernels *k, const float *x, float *y, int n)
{
    k->vec.tanh(x, y, n);
}

void vec_rope(const struct kernels *k, float *x, const float *cos_t, const float *sin_t, int n)
{
    k->vec.rope(x, cos_t, sin_t, n);
}

void attention_head(const struct kernels *k, const float *q, int h, const struct kv_run *runs, int n_runs, int from,
                    int to, float scale, float cap, float *out, float *scratch)
{
    k->vec.attention(q, h, runs, n_runs, from, to, scale, cap, out, scratch);
}

/* ---- scalar functions in double: +, -, *, / in a fixed order, so the same everywhere ---- */

/* sin(x - k pi), |x - k pi| <= pi / 2, k a multiple of a half: the odd polynomial of degree 9 that begins with r and has the least
 * relative error there, 6.1e-9.  That is a tenth of a float's last bit, and 5 % of the tables' entries are not the nearest
 * float for it; but the reference implementations' vector library has this sine (no difference in 6 million values of
 * angles up to 80, 38 in 2 million up to 9000), and at scale 1.0 Gemma 4's scores show the difference.
 * pi in three parts of 33 bits: k times a part is exact for k < 2^19. */
static double sine(double x, double k)
{
    double r = ((x - k * 0x1.921fb544p+1) - k * 0x1.0b4611a6p-33) - k * 0x1.3198a2e037073p-68, t = r * r;
    double p = ((0x1.5dbdf0e3173cp-19 * t - 0x1.9f6ffeea56afbp-13) * t + 0x1.110ed3804c2bp-7) * t - 0x1.55554bc83656dp-3;
    return r + r * t * p;
}

static bool odd(double k)
{
    return k - 2 * floor(k / 2) == 1;
}

/* sin x = +-sin(x - k pi), cos x = +-sin(x - (k + 1/2) pi). */
static void sin_cos(double x, double *s, double *c)
{
    double nearest = floor(x * 0x1.45f306dc9c883p-2 + 0.5), below = floor(x * 0x1.45f306dc9c883p-2);
    *s = odd(nearest) ? -sine(x, nearest) : sine(x, nearest);
    *c = odd(below) ? sine(x, below + 0.5) : -sine(x, below + 0.5);
}

void rope_row(const float *inv_freq, int half, int position, float *cos_out, float *sin_out)
{
    for (int i = 0; i < half; i++) {
        double s, c;
        sin_cos((double)((float)position * inv_freq[i]), &s, &c);
        cos_out[i] = (float)c;
        sin_out[i] = (float)s;
    }
}

/* ln x for normal x > 0: x = m 2^e, m in 0.70 .. 1.42, ln m = 2 atanh((m - 1) / (m + 1)). */
double ln_f64(double x)
{
    int e;
    double m = frexp(x, &e);
    if (m < 0x1.6a09e667f3bcdp-1) {
        m *= 2;
        e--;
    }
    double z = (m - 1) / (m + 1), t = z * z, p = 0;
    for (int i = 23; i >= 3; i -= 2)
        p = (p + 1.0 / i) * t;
    return e * 0x1.62e42fefa39efp-1 + 2 * (z + z * p);
}

void vec_top2(const struct kernels *k, const float *x, int n, struct top2 *out)
{
    float first = k->vec.max(x, n);
    int at = 0;
    while (at + 1 < n && x[at] != first)
        at++;
    float second = -INFINITY;
    if (at > 0)
        second = k->vec.max(x, at);
    if (at + 1 < n) {
        float after = k->vec.max(x + at + 1, n - at - 1);
        second = after > second ? after : second;
    }
    *out = (struct top2){ at, first, second, ln_f64(k->vec.sum_exp(x, first, n)) + (double)first };
}

double logits_log_sum(const float *x, int n)
{
    const struct kernels *k = kernels_find(NULL, NULL);
    float max = k->vec.max(x, n);
    return ln_f64(k->vec.sum_exp(x, max, n)) + (double)max;
}

int logits_top(const float *x, int n, float *first, float *second)
{
    struct top2 t;
    vec_top2(kernels_find(NULL, NULL), x, n, &t);
    *first = t.first;
    *second = t.second;
    return t.index;
}
