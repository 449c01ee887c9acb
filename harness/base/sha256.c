#include "sha256.h"

#include <openssl/evp.h>
#include <stdio.h>

#include "file.h"

bool sha256_init(struct sha256 *s, struct error *err)
{
    s->ctx = EVP_MD_CTX_new();
    if (s->ctx && EVP_DigestInit_ex(s->ctx, EVP_sha256(), NULL) == 1)
        return true;
    EVP_MD_CTX_free(s->ctx);
    s->ctx = NULL;
    return fail(err, STATUS_MEMORY, "cannot start a SHA-256");
}

void sha256_add(struct sha256 *s, const void *data, size_t len)
{
    EVP_DigestUpdate(s->ctx, data, len);
}

void sha256_end(struct sha256 *s, uint8_t digest[32])
{
    EVP_DigestFinal_ex(s->ctx, digest, NULL);
    EVP_MD_CTX_free(s->ctx);
    s->ctx = NULL;
}

bool sha256_bytes(const void *data, size_t len, uint8_t digest[32], struct error *err)
{
    struct sha256 s;
    if (!sha256_init(&s, err))
        return false;
    sha256_add(&s, data, len);
    sha256_end(&s, digest);
    return true;
}

bool sha256_file(const char *path, uint8_t digest[32], struct error *err)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return fail_errno(err, path, "cannot open");
    struct sha256 s;
    bool ok = sha256_init(&s, err);
    static _Thread_local char buffer[1 << 16];
    for (size_t n; ok && (n = fread(buffer, 1, sizeof buffer, f)) > 0;)
        sha256_add(&s, buffer, n);
    bool read_failed = ferror(f) != 0;
    if (ok)
        sha256_end(&s, digest);
    if (ok && read_failed)
        ok = fail_errno(err, path, "cannot read");
    fclose(f);
    return ok;
}

void hex_of(const uint8_t *bytes, size_t n, char *out)
{
    for (size_t i = 0; i < n; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}
