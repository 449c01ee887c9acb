/* The calibrated solver against independent double-precision versions: the classical GPTQ loop with an inverse
 * Hessian, Babai's nearest plane, and the identity of its loss; kernel sets against each other. */
#include "check.h"

#include "base/base.h"
#include "quantizers.h"

#include "../../quantizers/lanes.h"
#include "../../quantizers/search.h"
#include "../../quantizers/solve.h"

enum { N = 96, ROWS = 21, TOKENS = 700 };

static double uniform(uint64_t i)
{
    return random_unit_at(77, i) * 2 - 1;
}

/* Correlated inputs with channels of different size, as activations are. */
static void inputs(float *x, int n, int tokens)
{
    for (int t = 0; t < tokens; t++) {
        double common = uniform((uint64_t)t * 3 + 1);
        for (int c = 0; c < n; c++)
            x[t * n + c] = (float)(exp(uniform((uint64_t)c + 5000)) * (uniform((uint64_t)(t * n + c) + 100000) + 0.7 * common));
    }
}

static void weights(float *w, int rows, int n)
{
    for (int i = 0; i < rows * n; i++)
        w[i] = (float)(0.1 * (uniform((uint64_t)i + 1) + uniform((uint64_t)i + 900001)));
}

static struct hessian make_hessian(const float *x, int n, int tokens, struct pool *pool)
{
    struct error err;
    struct hessian h;
    MUST(hessian_open(&h, n, &err));
    hessian_add(&h, pool, x, tokens, (size_t)n);
    CHECK(hessian_finish(&h), "inputs are finite");
    return h;
}

static void test_hessian(void **state)
{
    (void)state;
    static float x[TOKENS * N];
    inputs(x, N, TOKENS);
    struct hessian h = make_hessian(x, N, TOKENS, NULL);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            double want = 0, size = 0;
            for (int t = 0; t < TOKENS; t++) {
                want += (double)x[t * N + i] * (double)x[t * N + j] / TOKENS;
                size += fabs((double)x[t * N + i] * (double)x[t * N + j]) / TOKENS;
            }
            CHECK_NEAR(h.h[(size_t)i * h.ld + (size_t)j], want, 3e-6 * size, "H[%d][%d]", i, j);
        }
    hessian_close(&h);
}

static void test_cholesky(void **state)
{
    (void)state;
    static const int sizes[] = { 1, 63, 64, 65, 128, 150, 192 };
    for (size_t k = 0; k < ARRAY_LEN(sizes); k++) {
        struct error err;
        int n = sizes[k];
        size_t ld = (size_t)(n + PANEL - 1) / PANEL * PANEL;
        float *x = mem_new((size_t)(n * 400), sizeof *x, &err);
        inputs(x, n, 400);
        struct hessian h = make_hessian(x, n, 400, NULL);
        double *a = mem_new(ld * ld, sizeof *a, &err);
        memcpy(a, h.h, ld * ld * sizeof *a);
        MUST(cholesky(a, n, ld, NULL, &err));
        for (int i = 0; i < n; i++)
            for (int j = 0; j <= i; j++) {
                double sum = 0;
                for (int p = 0; p <= j; p++)
                    sum += a[(size_t)i * ld + (size_t)p] * a[(size_t)j * ld + (size_t)p];
                CHECK_NEAR(sum, h.h[(size_t)i * ld + (size_t)j], 1e-11, "n %d: (L L')[%d][%d]", n, i, j);
            }
        h.h[0] = -1;
        CHECK(!cholesky(h.h, n, ld, NULL, &err), "a negative diagonal was factored");
        free(x);
        free(a);
        hessian_close(&h);
    }
}

/* ---- classical GPTQ, double precision, natural order ---- */

static void invert(double *a, int n)
{
    static double inv[N * N];
    memset(inv, 0, sizeof inv);
    for (int i = 0; i < n; i++)
        inv[i * n + i] = 1;
    for (int c = 0; c < n; c++) {
        double p = a[c * n + c];
        for (int j = 0; j < n; j++) {
            a[c * n + j] /= p;
            inv[c * n + j] /= p;
        }
        for (int r = 0; r < n; r++) {
            double f = r == c ? 0 : a[r * n + c];
            for (int j = 0; j < n && f != 0; j++) {
                a[r * n + j] -= f * a[c * n + j];
                inv[r * n + j] -= f * inv[c * n + j];
            }
        }
    }
    memcpy(a, inv, sizeof inv);
}

/* U upper with U' U = a. */
static void upper_factor(const double *a, double *u, int n)
{
    memset(u, 0, sizeof(double) * (size_t)(n * n));
    for (int i = 0; i < n; i++)
        for (int j = i; j < n; j++) {
            double s = a[i * n + j];
            for (int k = 0; k < i; k++)
                s -= u[k * n + i] * u[k * n + j];
            u[i * n + j] = i == j ? sqrt(s) : s / u[i * n + i];
        }
}

static double nearest_q4_0(double w, double d)
{
    double c = rint(w / d);
    return d * (c < -8 ? -8 : c > 7 ? 7 : c);
}

/* Codes' values of one row by the loop of the GPTQ paper. */
static double classical(const double *u, const float *w, const float *scale, int n, double *q)
{
    double work[N], loss = 0;
    for (int i = 0; i < n; i++)
        work[i] = (double)w[i];
    for (int i = 0; i < n; i++) {
        q[i] = nearest_q4_0(work[i], (double)scale[i / 32]);
        double e = (work[i] - q[i]) / u[i * n + i];
        for (int j = i; j < n; j++)
            work[j] -= e * u[i * n + j];
        loss += e * e;
    }
    return loss;
}

/* Nearest plane in the basis R (H = R R', R upper), front to back. */
static void babai(const double *r, const float *w, const float *scale, int n, double *q)
{
    for (int k = 0; k < n; k++) {
        double shift = 0;
        for (int j = 0; j < k; j++)
            shift += r[j * n + k] * ((double)w[j] - q[j]);
        q[k] = nearest_q4_0((double)w[k] + shift / r[k * n + k], (double)scale[k / 32]);
    }
}

/* R upper with R R' = h, from the last row up. */
static void back_factor(const double *h, double *r, int n)
{
    memset(r, 0, sizeof(double) * (size_t)(n * n));
    for (int j = n - 1; j >= 0; j--)
        for (int i = j; i >= 0; i--) {
            double s = h[i * n + j];
            for (int k = j + 1; k < n; k++)
                s -= r[i * n + k] * r[j * n + k];
            r[i * n + j] = i == j ? sqrt(s) : s / r[j * n + j];
        }
}

static void test_gptq_equals_classical(void **state)
{
    (void)state;
    static float x[TOKENS * N], w[ROWS * N];
    static double damped[N * N], inv[N * N], u[N * N], r[N * N];
    struct error err;
    inputs(x, N, TOKENS);
    weights(w, ROWS, N);
    struct hessian h = make_hessian(x, N, TOKENS, NULL);
    struct solve_options o = { .algorithm = ALGORITHM_GPTQ, .damp = 0.02, .passes = 0, .act_order = false };
    struct solution s;
    MUST(solve_matrix(grid_find(FORMAT_Q4_0, "q4_0"), w, ROWS, N, &h, &o, NULL, &s, &err));
    CHECK(s.factored, "the factorisation failed");
    CHECK_NEAR(s.damp, 0.02, 0, "damp");
    double mean = 0, total = 0;
    for (int i = 0; i < N; i++)
        mean += h.h[(size_t)i * h.ld + (size_t)i] / N;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            inv[i * N + j] = damped[i * N + j] = h.h[(size_t)i * h.ld + (size_t)j] + (i == j ? 0.02 * mean : 0);
    back_factor(damped, r, N);
    invert(inv, N);
    upper_factor(inv, u, N);
    int differ = 0;
    for (int row = 0; row < ROWS; row++) {
        float got[N], scale[N / 32];
        const struct block_q4_0 *b = (const struct block_q4_0 *)s.bytes + row * (N / 32);
        formats[FORMAT_Q4_0].to_f32(b, got, N);
        for (int k = 0; k < N / 32; k++)
            scale[k] = f16_to_f32(b[k].d);
        double q[N], q2[N], e[N], norm = 0, loss = classical(u, w + row * N, scale, N, q);
        babai(r, w + row * N, scale, N, q2);
        for (int i = 0; i < N; i++) {
            CHECK_NEAR(q[i], q2[i], 1e-9, "row %d column %d: Babai and GPTQ", row, i);
            differ += fabs(q[i] - (double)got[i]) > 1e-6;       /* float32 may fall to the other side of a tie */
            e[i] = (double)w[row * N + i] - q[i];
        }
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++)
                norm += e[i] * damped[i * N + j] * e[j];
        CHECK_NEAR(loss, norm, 1e-9 * norm, "row %d: sum of squared steps against e' (H + lambda) e", row);
        total += norm;
    }
    CHECK(differ <= 3, "%d of %d codes differ from the classical loop", differ, ROWS * N);
    free(s.bytes);
    hessian_close(&h);
}

/* e' h e of a row. */
static double row_loss(const double *h, const float *w, const double *q, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            sum += ((double)w[i] - q[i]) * h[i * n + j] * ((double)w[j] - q[j]);
    return sum;
}

/* The search over a row of one block is as good as the best of its scales under Babai's nearest plane, by double
 * precision, and as what the sweep and descent had. */
static void test_block_search(void **state)
{
    (void)state;
    enum { B = BLOCK };
    static float x[TOKENS * B], w[ROWS * B];
    static double damped[B * B], r[B * B];
    struct error err;
    inputs(x, B, TOKENS);
    weights(w, ROWS, B);
    struct hessian h = make_hessian(x, B, TOKENS, NULL);
    struct solve_options o = { .algorithm = ALGORITHM_GPTQ, .damp = 0.02, .passes = 4, .act_order = true }, searched = o;
    searched.searches = 1;
    struct solution s[2];
    MUST(solve_matrix(grid_find(FORMAT_Q4_0, "q4_0"), w, ROWS, B, &h, &o, NULL, &s[0], &err));
    MUST(solve_matrix(grid_find(FORMAT_Q4_0, "q4_0"), w, ROWS, B, &h, &searched, NULL, &s[1], &err));
    double mean = 0, total[2] = { 0 };
    for (int i = 0; i < B; i++)
        mean += h.h[(size_t)i * h.ld + (size_t)i] / B;
    for (int i = 0; i < B * B; i++)
        damped[i] = h.h[(size_t)(i / B) * h.ld + (size_t)(i % B)] + (i / B == i % B ? 0.02 * mean : 0);
    back_factor(damped, r, B);
    for (int row = 0; row < ROWS; row++) {
        double q[B], loss[2], best = INFINITY;
        float largest = 0, got[B];
        for (int k = 0; k < 2; k++) {
            formats[FORMAT_Q4_0].to_f32((const struct block_q4_0 *)s[k].bytes + row, got, B);
            for (int i = 0; i < B; i++)
                q[i] = (double)got[i];
            total[k] += loss[k] = row_loss(damped, w + row * B, q, B);
        }
        for (int i = 0; i < B; i++)
            largest = fabsf(w[row * B + i]) > largest ? fabsf(w[row * B + i]) : largest;
        for (int k = 0; k < 32; k++) {
            float scale = f16_to_f32(f32_to_f16((k < 16 ? largest : -largest) / (8 * (0.75f + 0.025f * (float)(k % 16)))));
            babai(r, w + row * B, &scale, B, q);
            best = fmin(best, row_loss(damped, w + row * B, q, B));
        }
        CHECK(loss[1] <= 1.0001 * fmin(best, loss[0]), "row %d: %.6g, by double precision %.6g, before %.6g", row, loss[1], best, loss[0]);
    }
    CHECK(total[1] < 0.99 * total[0], "search gained nothing: %.6g of %.6g", total[1], total[0]);
    free(s[0].bytes);
    free(s[1].bytes);
    hessian_close(&h);
}

/* The sweep's own sum of losses is e' (H + lambda) e of what it wrote: checked through solve_matrix' undamped loss
 * with a tiny damp.  And each refinement must help: scales by diag(H) < plain; GPTQ < rounding; act-order and descent
 * on top; descent alone between. */
static void test_order_of_methods(void **state)
{
    (void)state;
    enum { WIDTH = 256, HEIGHT = 64, T = 4096 };
    struct error err;
    float *x = mem_new(T * WIDTH, sizeof *x, &err), *w = mem_new(HEIGHT * WIDTH, sizeof *w, &err);
    inputs(x, WIDTH, T);
    weights(w, HEIGHT, WIDTH);
    struct hessian h = make_hessian(x, WIDTH, T, NULL);
    static const struct solve_options options[] = {
        { ALGORITHM_RTN, 0, 0, false, true, 0, false, 0 },  { ALGORITHM_CD, 0, 4, false, true, 0, false, 0 },
        { ALGORITHM_GPTQ, 0, 0, false, true, 0, false, 0 }, { ALGORITHM_GPTQ, 0, 0, true, true, 0, false, 0 },
        { ALGORITHM_GPTQ, 0, 4, true, true, 0, false, 0 },
        /* the search lowers the damped loss: with little damping this one as well */
        { ALGORITHM_GPTQ, 0.001, 4, true, true, 0, false, 0 }, { ALGORITHM_GPTQ, 0.001, 4, true, true, 0, false, 2 },
    };
    double loss[ARRAY_LEN(options)];
    static const struct { enum format_id f; const char *name; } grids[] = {
        { FORMAT_Q4_0, "q4_0" }, { FORMAT_Q4_1, "q4_1" }, { FORMAT_Q4_K, "q4_k" }, { FORMAT_IQ4_NL, "iq4_nl" },
        { FORMAT_I4M, "int4-g128" }, { FORMAT_I4M, "int4-g128-asym" },
    };
    for (size_t g = 0; g < ARRAY_LEN(grids); g++) {
        const struct grid *grid = grid_find(grids[g].f, grids[g].name);
        for (size_t k = 0; k < ARRAY_LEN(options); k++) {
            struct solution s;
            MUST(solve_matrix(grid, w, HEIGHT, WIDTH, &h, &options[k], NULL, &s, &err));
            loss[k] = s.loss;
            /* the loss of the bytes themselves */
            double power = 0, error = 0;
            for (int r = 0; r < HEIGHT; r++) {
                float back[WIDTH];
                formats[grid->format].to_f32(s.bytes + r * format_row_bytes(grid->format, WIDTH), back, WIDTH);
                for (int i = 0; i < WIDTH; i++)
                    for (int j = 0; j < WIDTH; j++) {
                        double hij = h.h[(size_t)i * h.ld + (size_t)j], wi = (double)w[r * WIDTH + i], wj = (double)w[r * WIDTH + j];
                        power += wi * hij * wj;
                        error += (wi - (double)back[i]) * hij * (wj - (double)back[j]);
                    }
            }
            CHECK_NEAR(s.loss, error / power, 2e-4 * error / power + 1e-9, "%s algorithm %zu: loss told and loss of the bytes", grids[g].name, k);
            CHECK(k == 0 || s.loss < s.plain_loss, "%s algorithm %zu: %.4g is no better than rounding, %.4g", grids[g].name, k, s.loss, s.plain_loss);
            free(s.bytes);
        }
        CHECK(loss[1] < loss[0] && loss[2] < loss[0] && loss[4] < loss[3], "%s: rtn %.4g cd %.4g gptq %.4g act-order %.4g + descent %.4g",
              grids[g].name, loss[0], loss[1], loss[2], loss[3], loss[4]);
        CHECK(grid->refit ? loss[6] < loss[5] : loss[6] == loss[5], "%s: descent %.4g, with search %.4g", grids[g].name, loss[5], loss[6]);
        CHECK(loss[4] < (g ? 0.95 : 0.75) * loss[0], "%s: gptq %.4g of rtn %.4g", grids[g].name, loss[4], loss[0]);
    }
    free(x);
    free(w);
    hessian_close(&h);
}

/* Inputs that moved away from those wanted: H and drift of the moved ones. */
static struct hessian drifted(const float *x, const float *want, struct pool *pool)
{
    struct error err;
    struct hessian h;
    MUST(hessian_open(&h, N, &err));
    MUST(hessian_open_drift(&h, &err));
    hessian_add(&h, pool, x, TOKENS, N);
    hessian_add_drift(&h, pool, x, N, want, N, TOKENS);
    CHECK(hessian_finish(&h), "inputs are finite");
    return h;
}

/* Squared distance of the outputs of codes for x from those of w for want, plus the damping's share. */
static double distance(const float *x, const float *want, const float *w, const float *q, double lambda)
{
    double sum = 0;
    for (int t = 0; t < TOKENS; t++) {
        double y = 0;
        for (int i = 0; i < N; i++)
            y += (double)w[i] * (double)want[t * N + i] - (double)q[i] * (double)x[t * N + i];
        sum += y * y / TOKENS;
    }
    for (int i = 0; i < N; i++)
        sum += lambda * pow((double)(w[i] - q[i]), 2);
    return sum;
}

/* Drift is the mean of (want - x) x'; where nothing moved, it changes no byte; where inputs are all scaled by 4/5 and
 * nothing is damped, the codes are those of weights 5/4 as large; and where they moved at random, the outputs come
 * closer to those wanted than without. */
static void test_drift(void **state)
{
    (void)state;
    static float x[TOKENS * N], want[TOKENS * N], w[ROWS * N], larger[ROWS * N];
    struct error err;
    const struct grid *g = grid_find(FORMAT_Q4_0, "q4_0");
    struct solve_options o = { .algorithm = ALGORITHM_GPTQ, .damp = 0.1, .passes = 4, .act_order = true, .drift = true }, plain = o;
    struct solution a, b;
    plain.drift = false;
    inputs(want, N, TOKENS);
    weights(w, ROWS, N);
    struct hessian h = drifted(want, want, NULL);
    MUST(solve_matrix(g, w, ROWS, N, &h, &o, NULL, &a, &err));
    MUST(solve_matrix(g, w, ROWS, N, &h, &plain, NULL, &b, &err));
    assert_memory_equal(a.bytes, b.bytes, ROWS * N / 32 * 18);
    free(a.bytes);
    free(b.bytes);
    hessian_close(&h);

    for (int i = 0; i < TOKENS * N; i++)
        x[i] = 0.8f * want[i];
    for (int i = 0; i < ROWS * N; i++)
        larger[i] = 1.25f * w[i];
    h = drifted(x, want, NULL);
    o.damp = plain.damp = 1e-7;
    MUST(solve_matrix(g, w, ROWS, N, &h, &o, NULL, &a, &err));
    MUST(solve_matrix(g, larger, ROWS, N, &h, &plain, NULL, &b, &err));
    int differ = 0;
    for (int i = 0; i < ROWS * N / 32 * 18; i++)
        differ += a.bytes[i] != b.bytes[i];
    CHECK(differ <= 8, "%d bytes differ from those of weights 5/4 as large", differ);      /* ties fall either way */
    CHECK_NEAR(a.loss, b.loss, 1e-3 * b.loss, "loss");
    free(a.bytes);
    free(b.bytes);
    hessian_close(&h);

    for (int i = 0; i < TOKENS * N; i++)
        x[i] = want[i] * (float)(0.9 + 0.2 * uniform((uint64_t)(i % N) + 40)) + 0.3f * want[i / N * N + (i + 1) % N] +
               0.2f * (float)uniform((uint64_t)i + 7000000);
    h = drifted(x, want, NULL);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < N; k++) {
            double d = 0, size = 0;
            for (int t = 0; t < TOKENS; t++) {
                double e = (double)(want[t * N + i] - x[t * N + i]) * (double)x[t * N + k] / TOKENS;
                d += e;
                size += fabs(e);
            }
            CHECK_NEAR(h.drift[(size_t)i * h.ld + (size_t)k], d, 3e-6 * size, "drift[%d][%d]", i, k);
        }
    o.damp = plain.damp = 0.05;
    MUST(solve_matrix(g, w, ROWS, N, &h, &o, NULL, &a, &err));
    MUST(solve_matrix(g, w, ROWS, N, &h, &plain, NULL, &b, &err));
    double mean = 0, with = 0, without = 0;
    for (int i = 0; i < N; i++)
        mean += h.h[(size_t)i * h.ld + (size_t)i] / N;
    for (int r = 0; r < ROWS; r++) {
        float q[N], p[N];
        formats[FORMAT_Q4_0].to_f32(a.bytes + r * (N / 32 * 18), q, N);
        formats[FORMAT_Q4_0].to_f32(b.bytes + r * (N / 32 * 18), p, N);
        with += distance(x, want, w + r * N, q, a.damp * mean);
        without += distance(x, want, w + r * N, p, b.damp * mean);
    }
    CHECK(with < 0.5 * without, "distance to the outputs wanted: %.4g with drift, %.4g without", with, without);
    free(a.bytes);
    free(b.bytes);
    hessian_close(&h);
}

/* Rank-deficient inputs: damping saves the factorisation; inputs that are all zero fall back, and still write codes. */
static void test_degenerate(void **state)
{
    (void)state;
    static float x[TOKENS * N], w[ROWS * N];
    struct error err;
    weights(w, ROWS, N);
    for (int tokens = 0; tokens <= 8; tokens += 4) {
        for (int i = 0; i < tokens * N; i++)
            x[i] = (float)uniform((uint64_t)i);
        struct hessian h;
        MUST(hessian_open(&h, N, &err));
        hessian_add(&h, NULL, x, tokens, N);
        CHECK(hessian_finish(&h), "finite");
        struct solve_options o = { .algorithm = ALGORITHM_GPTQ, .passes = 4, .act_order = true };
        struct solution s;
        MUST(solve_matrix(grid_find(FORMAT_Q4_0, "q4_0"), w, ROWS, N, &h, &o, NULL, &s, &err));
        CHECK(s.factored == (tokens > 0), "%d tokens: factored %d", tokens, s.factored);
        float back[N];
        formats[FORMAT_Q4_0].to_f32(s.bytes, back, N);
        double e = 0, p = 0;
        for (int i = 0; i < N; i++) {
            e += pow((double)back[i] - (double)w[i], 2);
            p += pow((double)w[i], 2);
        }
        CHECK(e < 0.2 * p, "%d tokens: the codes are no weights any more (%.3g of %.3g)", tokens, e, p);
        free(s.bytes);
        hessian_close(&h);
    }
    static float bad[N] = { NAN };
    struct hessian h;
    MUST(hessian_open(&h, N, &err));
    hessian_add(&h, NULL, bad, 1, N);
    CHECK(!hessian_finish(&h), "a NaN input went unnoticed");
    hessian_close(&h);
}

/* Weights past what a scale in fp16 can hold, as fits against drifted inputs may be: the largest value there is, not 0. */
static void test_largest_scale(void **state)
{
    (void)state;
    static float x[TOKENS * N];
    inputs(x, N, TOKENS);
    struct hessian h = make_hessian(x, N, TOKENS, NULL);
    for (int search = 0; search <= 2; search += 2) {
        struct solve_options o = { .algorithm = ALGORITHM_GPTQ, .passes = 4, .searches = search, .act_order = true };
        struct solution s;
        struct error err;
        float w[N], back[N];
        for (int i = 0; i < N; i++)
            w[i] = (float)(0.01 * uniform((uint64_t)i));
        w[40] = 7e5f;
        MUST(solve_matrix(grid_find(FORMAT_Q4_0, "q4_0"), w, 1, N, &h, &o, NULL, &s, &err));
        formats[FORMAT_Q4_0].to_f32(s.bytes, back, N);
        CHECK(back[40] >= 7 * 65504.0f && isfinite(back[40]), "search %d: %g became %g", search, (double)w[40], (double)back[40]);
        free(s.bytes);
    }
    hessian_close(&h);
}

static void test_threads(void **state)
{
    (void)state;
    enum { WIDTH = 192, HEIGHT = 70, T = 600 };
    struct error err;
    float *x = mem_new(T * WIDTH, sizeof *x, &err), *w = mem_new(HEIGHT * WIDTH, sizeof *w, &err);
    inputs(x, WIDTH, T);
    weights(w, HEIGHT, WIDTH);
    struct solution s[2];
    for (int k = 0; k < 2; k++) {
        struct pool *pool;
        MUST(pool_open(&pool, k ? 4 : 1, &err));
        struct hessian h;
        MUST(hessian_open(&h, WIDTH, &err));
        MUST(hessian_open_drift(&h, &err));
        hessian_add(&h, pool, x, T - 1, WIDTH);
        hessian_add_drift(&h, pool, x, WIDTH, x + WIDTH, WIDTH, T - 1);
        CHECK(hessian_finish(&h), "inputs are finite");
        struct solve_options o = { .algorithm = ALGORITHM_GPTQ, .passes = 4, .act_order = true, .drift = true };
        MUST(solve_matrix(grid_find(FORMAT_Q4_0, "q4_0"), w, HEIGHT, WIDTH, &h, &o, pool, &s[k], &err));
        hessian_close(&h);
        pool_close(pool);
    }
    assert_memory_equal(s[0].bytes, s[1].bytes, HEIGHT * WIDTH / 32 * 18);
    CHECK(memcmp(&s[0].loss, &s[1].loss, sizeof(double)) == 0, "losses differ");
    free(s[0].bytes);
    free(s[1].bytes);
    free(x);
    free(w);
}

#if defined(__x86_64__)
static void test_kernel_sets_agree(void **state)
{
    (void)state;
    const struct { const char *name; bool there; const struct linear_kernels *lin; const struct search_kernels *search; } sets[] = {
        { "avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), &linear_avx2, &search_avx2 },
        { "avx512", __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"), &linear_avx512, &search_avx512 },
    };
    static float a[700 * PANEL], b[700 * PANEL], e[64 * WIDE], t[64 * 96], w[2][24 * WIDE];
    static double h[2][PANEL * PANEL], da[64 * PANEL], db[64 * PANEL], c[2][PANEL * PANEL];
    inputs(a, PANEL, 700);          /* more than a chunk */
    weights(b, 700, PANEL);
    weights(e, 64, WIDE);
    weights(t, 64, 96);
    for (int i = 0; i < 64 * PANEL; i++) {
        da[i] = uniform((uint64_t)i);
        db[i] = uniform((uint64_t)i + 50000);
    }
    for (size_t k = 0; k < ARRAY_LEN(sets); k++) {
        if (!sets[k].there)
            continue;
        memset(h, 0, sizeof h);
        memset(c, 0, sizeof c);
        memset(w, 0, sizeof w);
        for (int s = 0; s < 2; s++) {
            const struct linear_kernels *lin = s ? sets[k].lin : &linear_generic;
            lin->syrk(700, a, b, h[s], PANEL);
            lin->downdate(64, da, db, c[s], PANEL);
            lin->update(6, 2, t, 96 * DEPTH, e, w[s]);
        }
        assert_memory_equal(h[0], h[1], sizeof h[0]);
        assert_memory_equal(c[0], c[1], sizeof c[0]);
        assert_memory_equal(w[0], w[1], sizeof w[0]);
        float inv[32], got[2][4][32];
        const struct qkx_grid grid = { -1, 0.1f, 20, false };
        for (int i = 0; i < 32; i++)
            inv[i] = 20 + (float)i;
        static float ones[32 * SEARCH_WIDE];
        for (int i = 0; i < 32 * SEARCH_WIDE; i++)
            ones[i] = 1 + 0.01f * (float)(i % 7);
        for (int s = 0; s < 2; s++) {
            const struct search_kernels *search = s ? sets[k].search : &search_generic;
            search->qx(32, 8, b, ones, 32, inv, got[s][0], got[s][1]);
            search->iq4(32, b, ones, 32, inv, got[s][2], got[s][3]);
        }
        assert_memory_equal(got[0], got[1], sizeof got[0]);
        for (int s = 0; s < 2; s++)
            (s ? sets[k].search : &search_generic)->qkx(32, 15, b, ones, &grid, got[s][0], got[s][1], got[s][2], got[s][3]);
        for (int i = 0; i < 4; i++)
            assert_memory_equal(got[0][i], got[1][i], SEARCH_WIDE * sizeof(float));
    }
}

/* One group of rows, swept and descended, by every set: codes, scales, errors to the bit. */
struct group {
    float s[3 * WIDE], inv[3 * WIDE], m[3 * WIDE], swept[N * WIDE], codes[N * WIDE], value[N * WIDE], gradient[N * WIDE];
    double loss[WIDE];
};

static void run_group(const struct solve_kernels *k, const struct grid *grid, const float *tiled, const float *w, struct group *g)
{
    int order[N];
    double d[N];
    for (int i = 0; i < N; i++) {
        order[i] = i * 35 % N;                  /* 35 and 96 have no common factor */
        d[i] = 1 + 0.01 * i;
        memcpy(g->swept + i * WIDE, w + order[i] * WIDE, WIDE * sizeof *w);
    }
    for (int i = 0; i < 3 * WIDE; i++) {
        g->s[i] = i % 5 ? 0.01f + 0.0001f * (float)i : 0;
        g->inv[i] = g->s[i] != 0 ? 1 / g->s[i] : 0;
        g->m[i] = grid->asymmetric ? -0.1f : 0;
    }
    const struct sweep sweep = { grid, N, tiled, d, order, g->s, g->inv, g->m, w, g->swept, g->codes, g->loss };
    k->sweep(&sweep);
    struct descent down = { .grid = grid, .n = N, .passes = 3, .searches = 2, .h = tiled, .w = w, .s = g->s, .inv = g->inv, .m = g->m,
                            .codes = g->codes, .value = g->value, .gradient = g->gradient };
    k->descend(&down);
}

static void test_solver_sets_agree(void **state)
{
    (void)state;
    const struct { const char *name; bool there; const struct solve_kernels *set; } sets[] = {
        { "avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), &solve_avx2 },
        { "avx512", __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"), &solve_avx512 },
    };
    static const char *const grids[] = { "q4_0", "q4_1", "iq4_nl" };
    static const enum format_id ids[] = { FORMAT_Q4_0, FORMAT_Q4_1, FORMAT_IQ4_NL };
    static float tiled[N * N], w[N * WIDE];
    static struct group want, got;
    weights(w, N, WIDE);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            tiled[tiled_at(N, i, j)] = (float)(i == j ? 2 : 0.1 * uniform((uint64_t)(i < j ? i * N + j : j * N + i)));
    for (size_t g = 0; g < ARRAY_LEN(grids); g++) {
        memset(&want, 0, sizeof want);
        run_group(&solve_generic, grid_find(ids[g], grids[g]), tiled, w, &want);
        CHECK(want.codes[0] != 0 || want.codes[1] != 0, "%s: no code was chosen", grids[g]);
        for (size_t k = 0; k < ARRAY_LEN(sets); k++) {
            if (!sets[k].there)
                continue;
            memset(&got, 0, sizeof got);
            run_group(sets[k].set, grid_find(ids[g], grids[g]), tiled, w, &got);
            CHECK(!memcmp(&want, &got, sizeof want), "%s: %s differs from plain C", grids[g], sets[k].name);
        }
    }
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hessian),
        cmocka_unit_test(test_cholesky),
        cmocka_unit_test(test_gptq_equals_classical),
        cmocka_unit_test(test_block_search),
        cmocka_unit_test(test_order_of_methods),
        cmocka_unit_test(test_drift),
        cmocka_unit_test(test_degenerate),
        cmocka_unit_test(test_largest_scale),
        cmocka_unit_test(test_threads),
#if defined(__x86_64__)
        cmocka_unit_test(test_kernel_sets_agree),
        cmocka_unit_test(test_solver_sets_agree),
#endif
    };
    return cmocka_run_group_tests_name("quant_solve", tests, NULL, NULL);
}
