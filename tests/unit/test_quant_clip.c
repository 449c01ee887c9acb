/* Output errors by groups and the clip search, against plain double-precision versions. */
#include "check.h"

#include "base/base.h"
#include "quantizers.h"

#include "../../quantizers/clip.h"

enum { COLS = 256, ROWS = 19, TOKENS = 300 };

static double uniform(uint64_t i)
{
    return random_unit_at(91, i) * 2 - 1;
}

static void inputs(float *x)
{
    for (int t = 0; t < TOKENS; t++)
        for (int c = 0; c < COLS; c++)
            x[t * COLS + c] = (float)(exp(uniform((uint64_t)c + 300)) * (uniform((uint64_t)(t * COLS + c) + 9000) + 0.5 * uniform((uint64_t)(t * 8 + c / 32))));
}

static void weights(float *w)
{
    for (int i = 0; i < ROWS * COLS; i++)
        w[i] = (float)(0.1 * (uniform((uint64_t)i) + uniform((uint64_t)i + 70000)) * (i % 37 ? 1 : 4));
}

/* Sum over rows, groups and tokens of the squared output error, and damp times the mean square of the inputs. */
static double plain_error(const float *x, const float *w, const float *q, int width, const float *scale, double damp)
{
    double sum = 0, square = 0, e2 = 0;
    for (int i = 0; i < TOKENS * COLS; i++)
        square += (double)x[i] * (double)x[i];
    for (int r = 0; r < ROWS; r++)
        for (int from = 0; from < COLS; from += width) {
            double e[128];
            for (int i = 0; i < width; i++) {
                int c = from + i;
                e[i] = ((double)q[r * COLS + c] - (double)w[r * COLS + c]) / (scale ? (double)scale[c] : 1);
                e2 += e[i] * e[i];
            }
            for (int t = 0; t < TOKENS; t++) {
                double y = 0;
                for (int i = 0; i < width; i++)
                    y += e[i] * (double)x[t * COLS + from + i];
                sum += y * y;
            }
        }
    return sum + damp * square / COLS * e2;
}

static const struct { enum format_id f; const char *name; } kinds[] = {
    { FORMAT_Q4_0, "q4_0" }, { FORMAT_Q4_1, "q4_1" }, { FORMAT_I4M, "int4-g128-asym" }, { FORMAT_I4M, "int4-g32-asym" },
};

static void test_error(void **state)
{
    (void)state;
    static float x[TOKENS * COLS], w[ROWS * COLS], q[ROWS * COLS], scale[COLS], ones[COLS];
    static uint8_t blocks[ROWS * COLS * 4];
    inputs(x);
    weights(w);
    for (int c = 0; c < COLS; c++) {
        scale[c] = (float)exp(uniform((uint64_t)c + 4000));
        ones[c] = 1;
    }
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct error err;
        struct moments m;
        struct pool *pool;
        double got[2] = { 0 };
        int width = grid_find(kinds[k].f, kinds[k].name)->group;
        round_rows_plain(kinds[k].f, kinds[k].name, w, ROWS, COLS, ones, NULL, blocks);
        for (int r = 0; r < ROWS; r++)
            formats[kinds[k].f].to_f32(blocks + r * format_row_bytes(kinds[k].f, COLS), q + r * COLS, COLS);
        for (int t = 0; t < 2; t++) {
            MUST(pool_open(&pool, t ? 3 : 1, &err));
            MUST(moments_open(&m, COLS, width, 0.5, &err));
            moments_add(&m, pool, x, 100, COLS);
            moments_add(&m, pool, x + 100 * COLS, TOKENS - 100, COLS);
            MUST(moments_error(&m, kinds[k].f, w, blocks, ROWS, scale, pool, &got[t], &err));
            moments_close(&m);
            pool_close(pool);
        }
        CHECK(memcmp(&got[0], &got[1], sizeof got[0]) == 0, "%s: 1 and 3 threads differ", kinds[k].name);
        CHECK_NEAR(got[0], plain_error(x, w, q, width, scale, 0.5), 1e-9 * got[0], "%s", kinds[k].name);
    }
}

/* A group never ends worse; a group of many small weights and an outlier on a column without inputs is cut; the same
 * weights for any number of threads. */
static void test_clip(void **state)
{
    (void)state;
    static float x[TOKENS * COLS], w[ROWS * COLS], cut[2][ROWS * COLS], q[2][ROWS * COLS], importance[COLS];
    static uint8_t blocks[ROWS * COLS * 4];
    inputs(x);
    weights(w);
    for (int t = 0; t < TOKENS; t++)
        x[t * COLS + 40] *= 1e-3f;
    for (int r = 0; r < ROWS; r++)
        w[r * COLS + 40] = 1;
    for (int c = 0; c < COLS; c++)
        for (int t = 0; t < TOKENS; t++)
            importance[c] += x[t * COLS + c] * x[t * COLS + c] / TOKENS;
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct error err;
        struct moments m;
        const struct grid *g = grid_find(kinds[k].f, kinds[k].name);
        int64_t bytes = format_row_bytes(kinds[k].f, COLS), n[2];
        for (int t = 0; t < 2; t++) {
            struct pool *pool;
            MUST(pool_open(&pool, t ? 4 : 1, &err));
            MUST(moments_open(&m, COLS, g->group, 0, &err));
            moments_add(&m, pool, x, TOKENS, COLS);
            memcpy(cut[t], w, sizeof w);
            n[t] = clip_rows(g, cut[t], ROWS, importance, &m, NULL, pool);
            moments_close(&m);
            pool_close(pool);
        }
        CHECK(n[0] == n[1] && memcmp(cut[0], cut[1], sizeof w) == 0, "%s: 1 and 4 threads differ", kinds[k].name);
        CHECK(n[0] >= ROWS, "%s: %d groups were cut", kinds[k].name, (int)n[0]);
        for (int t = 0; t < 2; t++) {
            round_rows_plain(kinds[k].f, kinds[k].name, t ? cut[0] : w, ROWS, COLS, importance, NULL, blocks);
            for (int r = 0; r < ROWS; r++)
                formats[kinds[k].f].to_f32(blocks + r * bytes, q[t] + r * COLS, COLS);
        }
        int outliers = 0;
        for (int r = 0; r < ROWS; r++)
            outliers += cut[0][r * COLS + 40] < 1;
        CHECK(outliers > ROWS * 3 / 4, "%s: %d of %d outliers were cut", kinds[k].name, outliers, ROWS);
        double before = plain_error(x, w, q[0], g->group, NULL, 0), after = plain_error(x, w, q[1], g->group, NULL, 0);
        CHECK(after < 0.9 * before, "%s: output error %.4g clipped, %.4g whole", kinds[k].name, after, before);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error),
        cmocka_unit_test(test_clip),
    };
    return cmocka_run_group_tests_name("quant_clip", tests, NULL, NULL);
}
