/* sha256.h - digests (libcrypto does the work). */
#ifndef QDELTA_SHA256_H
#define QDELTA_SHA256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

struct sha256 {
    void *ctx;
};
bool sha256_init(struct sha256 *s, struct error *err);
void sha256_add(struct sha256 *s, const void *data, size_t len);
void sha256_end(struct sha256 *s, uint8_t digest[32]);      /* frees s */

bool sha256_bytes(const void *data, size_t len, uint8_t digest[32], struct error *err);
bool sha256_file(const char *path, uint8_t digest[32], struct error *err);
void hex_of(const uint8_t *bytes, size_t n, char *out);     /* 2n + 1 characters */

#endif
