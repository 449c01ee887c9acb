/* Functions of the kernels: error against libm in double over the whole range, and the same bits from every set. */
#include "check.h"

#include "engine/kernels/kernels.h"

typedef void (*function)(const struct kernels *k, const float *x, float *y, int n);

static void silu_of(const struct kernels *k, const float *x, float *y, int n)
{
    float one[256];
    for (int i = 0; i < n; i++)
        one[i] = 1;
    vec_glu(k, ACTIVATION_SILU, x, one, y, n);
}

static void gelu_of(const struct kernels *k, const float *x, float *y, int n)
{
    float one[256];
    for (int i = 0; i < n; i++)
        one[i] = 1;
    vec_glu(k, ACTIVATION_GELU_TANH, x, one, y, n);
}

static double silu_f64(double x)
{
    return x < 0 ? x * exp(x) / (1 + exp(x)) : x / (1 + exp(-x));
}

static double gelu_f64(double x)
{
    double c = x < -1e3 ? -1e3 : x > 1e3 ? 1e3 : x;     /* x^3 of the largest floats would overflow */
    double z = 2 * sqrt(2 / acos(-1)) * (c + 0.044715 * c * c * c);
    return z < 0 ? c * exp(z) / (1 + exp(z)) : x / (1 + exp(-z));
}

static const struct {
    const char *name;
    function of;
    double (*truth)(double);
    double max_ulp;
} functions[] = {
    { "exp", vec_exp, exp, 0.8 },
    { "tanh", vec_tanh, tanh, 1.5 },
    { "silu", silu_of, silu_f64, 1.5 },
    { "gelu", gelu_of, gelu_f64, 1.5 },
};

/* Distance in units of the last place of a float of want's size. */
static double ulps(float got, double want)
{
    if (isinf((float)want))
        return got == (float)want || fabs(want) < 0x1.000001p128 ? 0 : 1e9;
    int e;
    frexp(want, &e);
    return fabs((double)got - want) / ldexp(1, e < -125 ? -149 : e - 24);
}

struct worst {
    double ulps;
    float at;
};

static void measure(size_t f, const float x[256], struct worst *w)
{
    float y[256];
    functions[f].of(kernels_find(NULL, NULL), x, y, 256);
    for (int i = 0; i < 256; i++) {
        double u = ulps(y[i], functions[f].truth(x[i]));
        if (!(u <= w->ulps))
            *w = (struct worst){ u, x[i] };
    }
}

static void check_worst(size_t f, const struct worst *w)
{
    print_message("%s: worst error %.3f ulp at %a\n", functions[f].name, w->ulps, (double)w->at);
    CHECK(w->ulps <= functions[f].max_ulp, "%s(%a) is off by %g ulp", functions[f].name, (double)w->at, w->ulps);
}

/* Every STEP-th float, all signs and exponents; prime, so that low mantissa bits vary. */
static void test_error(void **state)
{
    (void)state;
    for (size_t f = 0; f < ARRAY_LEN(functions); f++) {
        struct worst worst = { 0 };
        uint32_t bits = 0;
        for (int block = 0; block < 4000; block++) {
            float x[256];
            for (int i = 0; i < 256; i++, bits += 4194 + (unsigned)block % 7) {
                memcpy(&x[i], &bits, sizeof bits);
                if (!isfinite(x[i]))
                    x[i] = (float)(block - 2000) / 16 + (float)i / 4096;
            }
            measure(f, x, &worst);
        }
        check_worst(f, &worst);
    }
}

/* The ranges where results are neither 0, 1 nor x, densely. */
static void test_error_dense(void **state)
{
    (void)state;
    for (size_t f = 0; f < ARRAY_LEN(functions); f++) {
        struct worst worst = { 0 };
        for (int block = 0; block < 8000; block++) {
            float x[256];
            for (int i = 0; i < 256; i++)
                x[i] = ((float)(block * 256 + i) / 2048000 - 0.5f) * (block % 2 ? 220.0f : 24.0f);
            measure(f, x, &worst);
        }
        check_worst(f, &worst);
    }
}

static void test_special(void **state)
{
    const struct {
        float x, exp, tanh, silu, gelu;
    } rows[] = {
        { 0.0f, 1, 0, 0, 0 },
        { INFINITY, INFINITY, 1, INFINITY, INFINITY },
        { -INFINITY, 0, -1, 0, 0 },
        { 3e38f, INFINITY, 1, 3e38f, 3e38f },
        { -3e38f, 0, -1, 0, 0 },
        { 1e-40f, 1, 1e-40f, 0.5e-40f, 0.5e-40f },
    };
    (void)state;
    for (const struct kernels *const *k = kernels_all(); *k; k++)
        for (size_t i = 0; kernels_supported(*k) && i < ARRAY_LEN(rows); i++) {
            const float want[] = { rows[i].exp, rows[i].tanh, rows[i].silu, rows[i].gelu };
            for (size_t f = 0; f < ARRAY_LEN(functions); f++) {
                float y, nan = NAN, z;
                functions[f].of(*k, &rows[i].x, &y, 1);
                CHECK(y == want[f], "%s %s(%g) = %g, want %g", kernels_name(*k), functions[f].name,
                      (double)rows[i].x, (double)y, (double)want[f]);
                functions[f].of(*k, &nan, &z, 1);
                CHECK(isnan(z), "%s %s(nan) = %g", kernels_name(*k), functions[f].name, (double)z);
            }
        }
}

static void test_same_bits(void **state)
{
    const struct kernels *generic = kernels_find("generic", NULL);
    (void)state;
    for (const struct kernels *const *k = kernels_all(); *k; k++) {
        if (!kernels_supported(*k) || *k == generic)
            continue;
        for (size_t f = 0; f < ARRAY_LEN(functions); f++) {
            uint32_t bits = 12345;
            for (int block = 0; block < 300; block++) {
                float x[253], want[253], got[253];
                for (int i = 0; i < 253; i++, bits += 56599) {
                    memcpy(&x[i], &bits, sizeof bits);
                    if (!isfinite(x[i]) || block % 2)
                        x[i] = (float)(block - 150) / 4 + (float)i / 512;
                }
                functions[f].of(generic, x, want, 253);
                functions[f].of(*k, x, got, 253);
                for (int i = 0; i < 253; i++)
                    CHECK(!memcmp(&want[i], &got[i], 4), "%s %s(%a): %a, generic %a", kernels_name(*k),
                          functions[f].name, (double)x[i], (double)got[i], (double)want[i]);
            }
        }
    }
}

static void test_rope_row(void **state)
{
    static const int positions[] = { 0, 1, 2, 7, 100, 4095, 32768, 131071, 999999 };
    float inv[32], c[32], s[32];
    (void)state;
    for (int i = 0; i < 32; i++)
        inv[i] = (float)pow(10000, -i / 32.0);
    for (size_t p = 0; p < ARRAY_LEN(positions); p++) {
        rope_row(inv, 32, positions[p], c, s);
        for (int i = 0; i < 32; i++) {
            double a = (double)((float)positions[p] * inv[i]);     /* the angle is rounded to f32 */
            CHECK_NEAR(c[i], cos(a), 6e-8, "cos at position %d, pair %d", positions[p], i);
            CHECK_NEAR(s[i], sin(a), 6e-8, "sin at position %d, pair %d", positions[p], i);
        }
    }
}

static void test_ln(void **state)
{
    (void)state;
    for (int i = -2000; i < 2000; i++) {
        double x = ldexp(1 + fmod(i * 0.7548776662466927, 1.0) * 0.999, i / 4), want = log(x);
        CHECK(fabs(ln_f64(x) - want) <= 3e-16 * fabs(want) + 1e-17, "ln %.17g = %.17g, libm %.17g", x, ln_f64(x), want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error),     cmocka_unit_test(test_error_dense), cmocka_unit_test(test_special),
        cmocka_unit_test(test_same_bits), cmocka_unit_test(test_rope_row),    cmocka_unit_test(test_ln),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
