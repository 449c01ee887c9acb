/* Matrix products, sums and attention: the plain set against arithmetic in double, every other set against the
 * plain one, bit for bit. */
#include "check.h"

#include "engine/kernels/kernels.h"

static uint64_t counter;

static uint32_t random_bits(void)
{
    return (uint32_t)random_at(7, counter++);
}

/* Normal enough, with a few large outliers as activations have. */
static void random_floats(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double u = -1.5;
        for (int j = 0; j < 3; j++)
            u += random_unit_at(7, counter++);
        x[i] = (float)(random_bits() % 97 == 0 ? 20 * u : u);
    }
}

/* Random bytes, drawn again until each block decodes to ordinary numbers of similar size. */
static void random_row(enum format_id id, uint8_t *row, int64_t cols)
{
    const struct format *f = &formats[id];
    for (int64_t k = 0; k < cols; k += f->block, row += f->block_bytes)
        for (bool good = false; !good;) {
            float x[256], most = 0;
            bool finite = true;
            for (int i = 0; i < f->block_bytes; i++)
                row[i] = (uint8_t)(random_bits() >> 24);
            if (f->block_bytes >= 16 && random_bits() % 5 == 0)
                memset(row + f->block_bytes / 2, random_bits() & 1 ? 0xff : 0, 3);      /* extreme codes */
            f->to_f32(row, x, f->block);
            for (int i = 0; i < f->block; i++) {
                finite &= isfinite(x[i]) != 0;
                most = fabsf(x[i]) <= most ? most : fabsf(x[i]);
            }
            good = finite && most > 0.02f && most < 20.0f;
        }
}

static const float *as_given(const struct tensor *t, int mat, int row, float *out)
{
    const struct format *f = &formats[t->format];
    float *stored = malloc((size_t)t->cols * sizeof *stored);
    size_t bytes = (size_t)format_row_bytes(t->format, t->cols);
    f->to_f32((const uint8_t *)t->data + ((size_t)mat * (size_t)t->rows + (size_t)row) * bytes, stored, t->cols);
    for (int64_t k = 0; k < t->cols; k++)
        out[t->col_perm ? t->col_perm[k] : k] = stored[k];
    free(stored);
    return out;
}

static struct tensor random_tensor(enum format_id f, int mats, int rows, int cols, bool permuted)
{
    struct tensor t = { .name = "w", .format = f, .mats = mats, .rows = rows, .cols = cols };
    size_t bytes = (size_t)format_row_bytes(f, cols);
    uint8_t *data = malloc(bytes * (size_t)rows * (size_t)mats);
    for (int r = 0; r < rows * mats; r++)
        random_row(f, data + (size_t)r * bytes, cols);
    t.data = data;
    t.bytes = bytes * (size_t)rows * (size_t)mats;
    if (permuted) {
        int32_t *perm = malloc((size_t)cols * sizeof *perm);
        for (int k = 0; k < cols; k++)
            perm[k] = k;
        for (int k = cols - 1; k > 0; k--) {
            int j = (int)(random_bits() % (unsigned)(k + 1));
            int32_t swap = perm[k];
            perm[k] = perm[j];
            perm[j] = swap;
        }
        t.col_perm = perm;
    }
    return t;
}

static void tensor_free(struct tensor *t)
{
    free((void *)(uintptr_t)t->data);
    free((void *)(uintptr_t)t->col_perm);
}

struct shape {
    int mats, rows, cols, n;
    bool permuted, listed;
};

/* y of every row of W for s.n activation rows; in a fresh buffer whose unused columns must stay untouched. */
static float *product(const struct kernels *k, const struct tensor *t, const struct shape *s, enum act_mode mode,
                      const float *x, bool in_place, struct pool *pool)
{
    struct error err;
    struct acts a;
    struct matrix w;
    int rows = s->listed ? s->n + 3 : s->n, list[64];
    size_t ldy = (size_t)s->rows + 5;
    float *y = malloc((size_t)s->n * ldy * sizeof *y);
    for (size_t i = 0; i < (size_t)s->n * ldy; i++)
        y[i] = 1234.5f;
    for (int i = 0; s->listed && i < s->n; i++)
        list[i] = s->n + 2 - i;
    MUST(acts_open(&a, rows, s->cols, mode, &err));
    MUST(matrix_open(&w, k, t, mode, in_place, pool, &err));
    acts_set(&a, x, (size_t)s->cols + 7, rows, s->cols);
    matrix_apply(&w, s->mats - 1, &a, s->listed ? list : NULL, s->n, y, ldy, pool);
    for (int i = 0; i < s->n; i++)
        for (size_t j = (size_t)s->rows; j < ldy; j++)
            CHECK(y[(size_t)i * ldy + j] == 1234.5f, "%s %s %dx%d n %d: wrote beyond the row", kernels_name(k),
                  formats[t->format].name, s->rows, s->cols, s->n);
    matrix_close(&w);
    acts_close(&a);
    return y;
}

/* Largest rounding of one activation, as a share of the largest magnitude around it. */
static const double act_step[ACT_COUNT] = { 0.5 / 32767, 0, 0.51 / 127 + 0x1p-11 };

static void check_against_double(const struct tensor *t, const struct shape *s, enum act_mode mode, const float *x,
                                 const float *y)
{
    float *row = malloc((size_t)s->cols * sizeof *row);
    bool integer = formats[t->format].int_block != 0;
    for (int r = 0; r < s->rows; r++) {
        as_given(t, s->mats - 1, r, row);
        for (int i = 0; i < s->n; i++) {
            const float *xi = x + (size_t)(s->listed ? s->n + 2 - i : i) * ((size_t)s->cols + 7);
            double sum = 0, size = 0, most = 0, weight = 0;
            for (int k = 0; k < s->cols; k++) {
                sum += (double)row[k] * (double)xi[k];
                size += fabs((double)row[k] * (double)xi[k]);
                weight += fabs((double)row[k]);
                most = fabs((double)xi[k]) > most ? fabs((double)xi[k]) : most;
            }
            double tol = 4e-6 * size + (integer ? act_step[mode] * most * weight : 0) + 1e-6 * most * weight;
            CHECK_NEAR(y[(size_t)i * ((size_t)s->rows + 5) + (size_t)r], sum, tol, "generic %s %s row %d of %d, cols %d, n %d",
                       formats[t->format].name, act_mode_names[mode], r, s->rows, s->cols, s->n);
        }
    }
    free(row);
}

static void check_same(const struct kernels *k, const struct tensor *t, const struct shape *s, enum act_mode mode,
                       const float *x, const float *want, bool in_place, struct pool *pool)
{
    float *got = product(k, t, s, mode, x, in_place, pool);
    for (int i = 0; i < s->n; i++)
        for (int r = 0; r < s->rows; r++) {
            size_t at = (size_t)i * ((size_t)s->rows + 5) + (size_t)r;
            CHECK(!memcmp(&want[at], &got[at], 4), "%s %s %s %s rows %d cols %d n %d: y[%d][%d] = %a, generic %a",
                  kernels_name(k), formats[t->format].name, act_mode_names[mode], in_place ? "in place" : "packed",
                  s->rows, s->cols, s->n, i, r, (double)got[at], (double)want[at]);
        }
    free(got);
}

static void check_shape(enum format_id f, const struct shape *s, struct pool *pool)
{
    if (s->cols % formats[f].block)
        return;
    struct tensor t = random_tensor(f, s->mats, s->rows, s->cols, s->permuted);
    size_t n = (size_t)(s->n + 3) * ((size_t)s->cols + 7);
    float *x = malloc(n * sizeof *x);
    random_floats(x, n);
    memset(x + s->cols / 2 / 32 * 32, 0, 32 * sizeof *x);       /* one block of zeros */
    for (int mode = 0; mode < ACT_COUNT; mode++) {
        if (formats[f].int_block && mode != ACT_F32 && s->cols % 32)
            continue;
        float *want = product(kernels_find("generic", NULL), &t, s, (enum act_mode)mode, x, true, NULL);
        check_against_double(&t, s, (enum act_mode)mode, x, want);
        for (const struct kernels *const *k = kernels_all(); *k; k++)
            for (int in_place = 0; kernels_supported(*k) && in_place < 2; in_place++)
                check_same(*k, &t, s, (enum act_mode)mode, x, want, in_place, pool);
        free(want);
    }
    free(x);
    tensor_free(&t);
}

static void test_products(void **state)
{
    static const struct shape shapes[] = {
        { 1, 16, 256, 1, false, false },   { 1, 37, 512, 13, false, false },  { 1, 5, 32, 2, false, false },
        { 2, 33, 288, 7, false, true },    { 1, 16, 64, 40, false, false },   { 1, 1, 768, 3, true, false },
        { 3, 50, 1280, 26, false, true },  { 1, 19, 544, 5, true, true },     { 1, 7, 172, 9, false, false },
        { 1, 4, 4352, 4, false, false },   { 1, 2, 1056, 230, false, false },   { 1, 18, 8, 6, false, false },
        { 1, 9, 1036, 1, false, false },     { 1, 130, 2048, 6, false, false },
        { 1, 67, 1100, 3, false, true },     { 2, 33, 300, 15, true, false },
    };
    struct error err;
    struct pool *pool;
    (void)state;
    MUST(pool_open(&pool, 2, &err));
    for (int f = 0; f < FORMAT_COUNT; f++)
        for (size_t s = 0; s < ARRAY_LEN(shapes); s++)
            check_shape((enum format_id)f, &shapes[s], pool);
    pool_close(pool);
}

/* Few and many rows, several row groups and activation groups: the formats that have code of their own. */
static void test_every_count(void **state)
{
    static const enum format_id ids[] = { FORMAT_F32, FORMAT_BF16, FORMAT_Q4_0, FORMAT_Q6_K, FORMAT_Q4_K };
    (void)state;
    for (size_t f = 0; f < ARRAY_LEN(ids); f++)
        for (int n = 1; n <= 40; n++)
            check_shape(ids[f], &(struct shape){ 1, 1 + 7 * n % 40, 256, n, false, false }, NULL);
}

/* A panel larger than L2, rows longer than a stripe: cut both ways, over two threads. */
static void test_large_panel(void **state)
{
    static const enum format_id ids[] = { FORMAT_BF16, FORMAT_Q4_0, FORMAT_Q8_0, FORMAT_Q6_K, FORMAT_Q4_K, FORMAT_I4M };
    struct error err;
    struct pool *pool;
    (void)state;
    MUST(pool_open(&pool, 2, &err));
    for (size_t f = 0; f < ARRAY_LEN(ids); f++)
        check_shape(ids[f], &(struct shape){ 1, 35, 1792, 380, false, false }, pool);
    pool_close(pool);
}

/* ---- several matrices at once ---- */

struct layer_case {
    enum format_id gate, up, down;
    int hidden, ffn, n;
};

/* down(act(gate x) * (up x)), product by product or as the set does it at once; gate's and up's own outputs behind it. */
static float *layer_product(const struct kernels *k, const struct layer_case *c, struct tensor t[3], enum act_mode mode, const float *x,
                            bool at_once, struct pool *pool)
{
    struct error err;
    struct matrix w[3];
    struct acts a, mid;
    size_t f = (size_t)c->ffn, d = (size_t)c->hidden, n = (size_t)c->n;
    float *y = calloc(n * (d + 2 * f), sizeof *y), *gate = y + n * d, *up = gate + n * f, *product = malloc(n * f * sizeof *product);
    MUST(acts_open(&a, c->n, c->hidden, mode, &err));
    MUST(acts_open(&mid, c->n, c->ffn, mode, &err));
    for (int i = 0; i < 3; i++)
        MUST(matrix_open(&w[i], k, &t[i], mode, false, pool, &err));
    acts_set(&a, x, d, c->n, c->hidden);
    const struct matrix_out out[] = { { &w[0], gate, f }, { &w[1], up, f } };
    for (int i = 0; i < 2 && !at_once; i++)
        matrix_apply(&w[i], 0, &a, NULL, c->n, out[i].y, f, pool);
    if (at_once)
        matrix_apply_each(out, 2, &a, c->n, pool);
    if (!at_once || !matrix_apply_glu(&w[0], &w[1], &a, c->n, ACTIVATION_GELU_TANH, &w[2], &mid, pool)) {
        vec_glu(k, ACTIVATION_GELU_TANH, gate, up, product, (int)(n * f));
        acts_set(&mid, product, f, c->n, c->ffn);
    }
    matrix_apply(&w[2], 0, &mid, NULL, c->n, y, d, pool);
    for (int i = 0; i < 3; i++)
        matrix_close(&w[i]);
    acts_close(&a);
    acts_close(&mid);
    free(product);
    return y;
}

static void check_layer(const struct layer_case *c, struct pool *pool)
{
    struct tensor t[] = { random_tensor(c->gate, 1, c->ffn, c->hidden, false), random_tensor(c->up, 1, c->ffn, c->hidden, false),
                          random_tensor(c->down, 1, c->hidden, c->ffn, false) };
    size_t n = (size_t)c->n * (size_t)c->hidden, all = (size_t)c->n * (size_t)(c->hidden + 2 * c->ffn);
    float *x = malloc(n * sizeof *x);
    random_floats(x, n);
    for (int mode = 0; mode < ACT_COUNT; mode++)
        for (const struct kernels *const *k = kernels_all(); *k; k++) {
            if (!kernels_supported(*k))
                continue;
            float *want = layer_product(*k, c, t, (enum act_mode)mode, x, false, pool);
            float *got = layer_product(*k, c, t, (enum act_mode)mode, x, true, pool);
            CHECK(!memcmp(want, got, all * sizeof *got), "%s %s: %s, %s, %s at once, %d x %d, n %d", kernels_name(*k),
                  act_mode_names[mode], formats[c->gate].name, formats[c->up].name, formats[c->down].name, c->ffn, c->hidden, c->n);
            free(want);
            free(got);
        }
    free(x);
    for (int i = 0; i < 3; i++)
        tensor_free(&t[i]);
}

/* One round of the threads or several: formats that share a panel and such that do not, rows that are no whole pair of tiles,
 * stripes, parts of rows, one row. */
static void test_at_once(void **state)
{
    static const struct layer_case cases[] = {
        { FORMAT_Q4_0, FORMAT_Q4_0, FORMAT_Q4_0, 256, 96, 1 },      { FORMAT_Q4_0, FORMAT_Q4_0, FORMAT_Q4_0, 320, 160, 29 },
        { FORMAT_Q4_0, FORMAT_Q4_0, FORMAT_Q8_0, 2048, 64, 300 },   { FORMAT_Q4_0, FORMAT_Q4_0, FORMAT_Q4_K, 256, 256, 7 },
        { FORMAT_Q4_K, FORMAT_Q4_K, FORMAT_Q6_K, 1024, 256, 44 },   { FORMAT_Q4_0, FORMAT_Q8_0, FORMAT_Q4_0, 64, 32, 5 },
        { FORMAT_Q6_K, FORMAT_Q6_K, FORMAT_Q4_0, 512, 64, 3 },      { FORMAT_BF16, FORMAT_BF16, FORMAT_Q4_0, 64, 64, 9 },
        { FORMAT_Q4_0, FORMAT_Q4_0, FORMAT_BF16, 64, 64, 9 },       { FORMAT_I4M, FORMAT_I4M, FORMAT_I4M, 256, 128, 13 },
        { FORMAT_Q4_0, FORMAT_Q4_0, FORMAT_Q4_0, 32, 32, 1100 },    { FORMAT_Q4_0, FORMAT_Q4_0, FORMAT_F32, 96, 40, 6 },
    };
    struct error err;
    struct pool *pool;
    (void)state;
    MUST(pool_open(&pool, 2, &err));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        check_layer(&cases[i], pool);
    pool_close(pool);
}

/* What one activation row gives does not depend on its neighbours. */
static void test_rows_alone(void **state)
{
    static const enum format_id ids[] = { FORMAT_BF16, FORMAT_Q4_0, FORMAT_Q6_K };
    struct shape all = { 1, 40, 512, 600, false, false }, one = { 1, 40, 512, 1, false, false };
    size_t n = 603 * 519;
    float *x = malloc(n * sizeof *x);
    (void)state;
    random_floats(x, n);
    for (size_t f = 0; f < ARRAY_LEN(ids); f++) {
        struct tensor t = random_tensor(ids[f], 1, 40, 512, false);
        const struct kernels *k = kernels_find(NULL, NULL);
        float *y = product(k, &t, &all, ACT_I16, x, false, NULL);
        for (int i = 0; i < 600; i += 17) {
            float *single = product(k, &t, &one, ACT_I16, x + (size_t)i * 519, true, NULL);
            CHECK(!memcmp(single, y + (size_t)i * 45, 40 * sizeof *y), "%s: row %d of 600", formats[ids[f]].name, i);
            free(single);
        }
        free(y);
        tensor_free(&t);
    }
    free(x);
}

/* NaN and infinity in activations must not vanish in the rounding. */
static void test_not_finite(void **state)
{
    (void)state;
    struct shape s = { 1, 16, 64, 1, false, false };
    struct tensor t = random_tensor(FORMAT_Q4_0, 1, 16, 64, false);
    for (const struct kernels *const *k = kernels_all(); *k; k++)
        for (int mode = 0; kernels_supported(*k) && mode < ACT_COUNT; mode++)
            for (int bad = 0; bad < 2; bad++) {
                float x[4 * 71];
                random_floats(x, ARRAY_LEN(x));
                x[37] = bad ? INFINITY : NAN;
                float *y = product(*k, &t, &s, (enum act_mode)mode, x, true, NULL);
                for (int r = 0; r < 16; r++)
                    CHECK(!isfinite(y[r]), "%s %s: %g", kernels_name(*k), act_mode_names[mode], (double)y[r]);
                free(y);
            }
    tensor_free(&t);
}

static void test_vectors(void **state)
{
    const struct kernels *g = kernels_find("generic", NULL);
    float a[700], b[700], want[700], got[700], c[350], s[350];
    (void)state;
    for (const struct kernels *const *k = kernels_all(); *k; k++)
        for (int n = 1; kernels_supported(*k) && n < 600; n += n < 70 ? 1 : 37) {
            struct top2 tw, tg;
            random_floats(a, 700);
            random_floats(b, 700);
#define SAME(NAME, SIZE, CALL_WANT, CALL_GOT)                                                          \
    memcpy(want, a, sizeof want);                                                                      \
    memcpy(got, a, sizeof got);                                                                        \
    CALL_WANT;                                                                                         \
    CALL_GOT;                                                                                          \
    CHECK(!memcmp(want, got, sizeof want), "%s %s %d", kernels_name(*k), NAME, SIZE);
            SAME("rms_norm", n, vec_rms_norm(g, a, b, 1e-6f, want, n), vec_rms_norm(*k, a, b, 1e-6f, got, n))
            SAME("rms_norm 1", n, vec_rms_norm(g, a, NULL, 1e-6f, want, n), vec_rms_norm(*k, a, NULL, 1e-6f, got, n))
            SAME("add", n, vec_add(g, want, b, n), vec_add(*k, got, b, n))
            SAME("scale", n, vec_scale(g, want, 0.37f, n), vec_scale(*k, got, 0.37f, n))
            SAME("softcap", n, vec_softcap(g, want, 30, n), vec_softcap(*k, got, 30, n))
            rope_row(b, n / 2, n, c, s);
            SAME("rope", n, vec_rope(g, want, c, s, n & ~1), vec_rope(*k, got, c, s, n & ~1))
            vec_top2(g, a, n, &tw);
            vec_top2(*k, a, n, &tg);
            CHECK(tw.index == tg.index && tw.first == tg.first && (n == 1 || tw.second == tg.second) &&
                      tw.log_sum == tg.log_sum, "%s top2 %d", kernels_name(*k), n);
        }
}

static void test_top2(void **state)
{
    float x[] = { 1, 7, 3, 7, -2 };
    struct top2 t;
    (void)state;
    vec_top2(kernels_find(NULL, NULL), x, 5, &t);
    CHECK(t.index == 1 && t.first == 7 && t.second == 7, "tie: index %d, %g, %g", t.index, (double)t.first, (double)t.second);
    CHECK_NEAR(t.log_sum, log(exp(1) + 2 * exp(7) + exp(3) + exp(-2)), 1e-6, "log sum");
    vec_top2(kernels_find(NULL, NULL), x + 2, 3, &t);
    CHECK(t.index == 1 && t.second == 3, "last of three: index %d, %g", t.index, (double)t.second);
}

static void attention_truth(const float *q, const float *k, const float *v, int h, size_t stride, int from, int to,
                            double scale, double cap, double *out)
{
    double max = -INFINITY, sum = 0, *s = calloc((size_t)to, sizeof *s);
    for (int j = from; j < to; j++) {
        for (int d = 0; d < h; d++)
            s[j] += (double)q[d] * (double)k[(size_t)j * stride + (size_t)d];
        s[j] = cap > 0 ? cap * tanh(s[j] * scale / cap) : s[j] * scale;
        max = s[j] > max ? s[j] : max;
    }
    for (int d = 0; d < h; d++)
        out[d] = 0;
    for (int j = from; j < to; j++) {
        double p = exp(s[j] - max);
        sum += p;
        for (int d = 0; d < h; d++)
            out[d] += p * (double)v[(size_t)j * stride + (size_t)d];
    }
    for (int d = 0; d < h; d++)
        out[d] /= sum;
    free(s);
}

static void test_attention(void **state)
{
    static const struct {
        int h, total, split, from, to;
        float cap;
    } rows[] = {
        { 8, 1, 0, 0, 1, 0 },        { 64, 200, 77, 0, 200, 0 },  { 48, 300, 128, 33, 290, 0 }, { 256, 130, 64, 0, 129, 50 },
        { 512, 70, 1, 69, 70, 0 },   { 12, 513, 300, 128, 513, 30 }, { 128, 64, 10, 0, 64, 0 }, { 20, 65, 65, 3, 65, 0 },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int h = rows[i].h, total = rows[i].total, split = rows[i].split;
        size_t stride = (size_t)h + 3, n = (size_t)total * stride;
        float *k = malloc(n * sizeof *k), *v = malloc(n * sizeof *v), q[512], want[512], got[512];
        float scratch[2 * ATTENTION_TILE + 512];
        double truth[512];
        random_floats(k, n);
        random_floats(v, n);
        random_floats(q, 512);
        struct kv_run whole = { k, v, stride, 0, total };
        struct kv_run parts[] = { { k, v, stride, 0, split },
                                  { k + (size_t)split * stride, v + (size_t)split * stride, stride, split, total - split } };
        attention_truth(q, k, v, h, stride, rows[i].from, rows[i].to, 0.125, (double)rows[i].cap, truth);
        attention_head(kernels_find("generic", NULL), q, h, &whole, 1, rows[i].from, rows[i].to, 0.125f, rows[i].cap,
                       want, scratch);
        for (int d = 0; d < h; d++)
            CHECK_NEAR(want[d], truth[d], 3e-5, "h %d, %d..%d, element %d", h, rows[i].from, rows[i].to, d);
        for (const struct kernels *const *s = kernels_all(); *s; s++) {
            if (!kernels_supported(*s))
                continue;
            attention_head(*s, q, h, parts, 2, rows[i].from, rows[i].to, 0.125f, rows[i].cap, got, scratch);
            CHECK(!memcmp(want, got, (size_t)h * sizeof *want), "%s h %d, %d..%d in two runs", kernels_name(*s), h,
                  rows[i].from, rows[i].to);
        }
        free(k);
        free(v);
    }
}

/* Many queries over shared runs: what attention_head gives each of them alone. */
static void test_attention_tiles(void **state)
{
    enum { MOST = 70, TOTAL = 210, STRIDE = 300, HEAD = 300 };
    static const int sizes[] = { 8, 64, 72, 128, 256, 20, HEAD };
    float *k = malloc(TOTAL * STRIDE * sizeof *k), *v = malloc(TOTAL * STRIDE * sizeof *v);
    float *q = malloc(MOST * HEAD * sizeof *q), *out = malloc(MOST * HEAD * sizeof *out), want[HEAD];
    float scratch[2 * ATTENTION_TILE + HEAD];
    (void)state;
    random_floats(k, TOTAL * STRIDE);
    random_floats(v, TOTAL * STRIDE);
    random_floats(q, MOST * HEAD);
    struct kv_run runs[] = { { k, v, STRIDE, 0, 100 }, { k + 100 * STRIDE, v + 100 * STRIDE, STRIDE, 100, TOTAL - 100 } };
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++)
        for (const struct kernels *const *set = kernels_all(); *set; set++)
            for (int n = 1; kernels_supported(*set) && n <= MOST; n += 1 + n / 3) {
                struct attention_query queries[MOST];
                int h = sizes[s], window = n % 2 ? 50 : TOTAL;
                for (int i = 0; i < n; i++) {
                    int to = TOTAL - n / 2 + i / 2;
                    queries[i] = (struct attention_query){ .q = q + i * HEAD, .out = out + i * HEAD,
                                                           .from = to > window ? to - window : 0, .to = to };
                }
                attention_start(queries, n, h);
                attention_tiles(*set, queries, n, h, runs, 2, queries[0].from, 192, 0.2f, n % 3 ? 0 : 40);
                attention_tiles(*set, queries, n, h, runs, 2, 192, TOTAL, 0.2f, n % 3 ? 0 : 40);
                attention_end(queries, n, h);
                for (int i = 0; i < n; i++) {
                    attention_head(kernels_find("generic", NULL), queries[i].q, h, runs, 2, queries[i].from, queries[i].to,
                                   0.2f, n % 3 ? 0 : 40, want, scratch);
                    CHECK(!memcmp(want, queries[i].out, (size_t)h * sizeof *want), "%s h %d, query %d of %d",
                          kernels_name(*set), h, i, n);
                }
            }
    free(k);
    free(v);
    free(q);
    free(out);
}

static void test_find(void **state)
{
    struct error err = { 0 };
    (void)state;
    CHECK(!kernels_find("avx1024", &err), "an unknown set was found");
    CHECK(strstr(err.text, "avx1024") && strstr(err.text, "generic"), "message: %s", err.text);
    CHECK(kernels_supported(kernels_find("generic", &err)), "generic must run everywhere");
    CHECK(engine_kernel_supported("generic") && !engine_kernel_supported("none"), "engine_kernel_supported");
    MUST(kernels_find(NULL, &err));
    print_message("kernels here: %s\n", kernels_name(kernels_find(NULL, &err)));
}

static void test_refused(void **state)
{
    struct error err;
    struct matrix w;
    struct tensor t = { .name = "blk.0.ffn_up.weight", .format = FORMAT_Q4_0, .rows = 1, .mats = 1, .cols = 48 };
    (void)state;
    CHECK(!matrix_open(&w, kernels_find("generic", NULL), &t, ACT_I16, true, NULL, &err), "48 columns of q4_0 were taken");
    CHECK(strstr(err.text, "blk.0.ffn_up.weight") && strstr(err.text, "48"), "message: %s", err.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find),      cmocka_unit_test(test_refused), cmocka_unit_test(test_products),
        cmocka_unit_test(test_every_count), cmocka_unit_test(test_large_panel), cmocka_unit_test(test_at_once),
        cmocka_unit_test(test_rows_alone), cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_vectors),   cmocka_unit_test(test_top2),    cmocka_unit_test(test_attention),
        cmocka_unit_test(test_attention_tiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
