/* check.h - cmocka plus assertions whose message needs no debugger, and the shared test data. */
#ifndef QDELTA_TEST_CHECK_H
#define QDELTA_TEST_CHECK_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#undef fail       /* ours fills a struct error */
#define TEST_FAIL() _fail(__FILE__, __LINE__)

#define CHECK(cond, ...)                                                              \
    do                                                                                \
        if (!(cond)) {                                                                \
            print_error("%s:%d: %s: ", __FILE__, __LINE__, #cond);                    \
            print_error(__VA_ARGS__);                                                 \
            print_error("\n");                                                        \
            TEST_FAIL();                                                                   \
        }                                                                             \
    while (0)

#define CHECK_NEAR(got, want, tol, ...)                                               \
    do {                                                                              \
        double got_ = (got), want_ = (want), tol_ = (tol);                            \
        if (!(fabs(got_ - want_) <= tol_)) {                                          \
            print_error("%s:%d: got %.17g, want %.17g +- %.3g: ", __FILE__, __LINE__, got_, want_, tol_); \
            print_error(__VA_ARGS__);                                                 \
            print_error("\n");                                                        \
            TEST_FAIL();                                                                   \
        }                                                                             \
    } while (0)

/* Call a function that fills a struct error named err. */
#define MUST(call) CHECK(call, "%s", err.text)

/* Folder of a file, a path with a slash. */
static inline void folder_of(const char *file, char out[1024])
{
    snprintf(out, 1024, "%.*s", (int)(strrchr(file, '/') - file), file);
}

/* Path of a file of the shared test data, or NULL where the data is absent: then print and skip(). */
static inline const char *shared_data(const char *name)
{
    static char path[4][1024];
    static int turn;
    const char *root = getenv("SHARED_DATA");
    char *p = path[turn++ & 3];
    snprintf(p, sizeof path[0], "%s/%s", root ? root : "../shared/data", name);
    FILE *f = fopen(p, "rb");
    if (!f) {
        printf("skip: %s is not here\n", p);
        return NULL;
    }
    fclose(f);
    return p;
}
#define NEED_SHARED(var, name)                  \
    const char *var = shared_data(name);        \
    if (!var)                                   \
        skip()

#endif
