#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool fail(struct error *err, enum status status, const char *format, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, format);
        err->status = status;
        vsnprintf(err->text, sizeof err->text, format, ap);
        va_end(ap);
    }
    return false;
}

bool fail_in(struct error *err, const char *format, ...)
{
    if (err) {
        char tail[sizeof err->text];
        memcpy(tail, err->text, sizeof tail);
        va_list ap;
        va_start(ap, format);
        int n = vsnprintf(err->text, sizeof err->text, format, ap);
        va_end(ap);
        if (n >= 0 && (size_t)n + 3 < sizeof err->text) {
            size_t room = sizeof err->text - (size_t)n - 3, len = strnlen(tail, room);
            memcpy(err->text + n, ": ", 2);
            memcpy(err->text + n + 2, tail, len);
            err->text[(size_t)n + 2 + len] = '\0';
        }
    }
    return false;
}

bool fail_errno(struct error *err, const char *path, const char *what)
{
    return fail(err, STATUS_IO, "%s: %s: %s", path, what, strerror(errno));
}
