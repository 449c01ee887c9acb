/* text.h - a growing byte string, UTF-8 helpers, nearest-word search.
 *
 * struct text remembers a failed allocation in .failed, so a writer checks once at the end. */
#ifndef QDELTA_TEXT_H
#define QDELTA_TEXT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

struct text {           /* zero-initialise; data is NUL-terminated once anything was added */
    char *data;
    size_t len, cap;
    bool failed;
};
void text_add(struct text *t, const char *data, size_t len);
void text_puts(struct text *t, const char *s);
void text_putc(struct text *t, char c);
void text_printf(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_clear(struct text *t);            /* keeps the buffer */
void text_free(struct text *t);
const char *text_str(const struct text *t); /* "" when empty */
bool text_ok(const struct text *t, struct error *err);

/* Decode one code point from s[0..len): returns its bytes (1..4), or 0 if s does not start with valid
 * UTF-8 (overlong forms, surrogates and > U+10FFFF are invalid).  len 0 returns 0. */
int utf8_decode(const char *s, size_t len, uint32_t *code);
int utf8_encode(uint32_t code, char out[4]);        /* bytes written, 0 if not encodable */
/* Offset of the first invalid byte, or len when all is valid. */
size_t utf8_check(const char *s, size_t len);
size_t utf8_count(const char *s, size_t len);       /* code points (an invalid byte counts as one) */

bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);

/* The word of words[0..n) with the fewest edits to given, or NULL if none is near (<= 1/2 its length). */
const char *nearest_word(const char *given, const char *const *words, size_t n);

/* Whole decimal integer or finite number, nothing after it, in [lo, hi]. */
bool parse_int(const char *s, int64_t lo, int64_t hi, int64_t *out);
bool parse_double(const char *s, double lo, double hi, double *out);

#endif
