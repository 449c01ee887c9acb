/* error.h - what went wrong, ready to print.
 *
 * Functions that can fail return bool and take a struct error last; on false the text says what
 * was found and what was expected, naming the file, tensor, item or option.  Only main.c prints. */
#ifndef QDELTA_ERROR_H
#define QDELTA_ERROR_H

#include <stdbool.h>

enum status {
    STATUS_OK,
    STATUS_USAGE,           /* the command line is wrong: exit 2 */
    STATUS_IO,              /* open, read, write, map, no room */
    STATUS_FORMAT,          /* a file's bytes are not what they should be */
    STATUS_INPUT,           /* a task, item, text or database that cannot be used */
    STATUS_UNSUPPORTED,     /* well-formed, but not something we can do */
    STATUS_MEMORY,
};

struct error {
    enum status status;
    char text[1024];
};

/* Fill err (may be NULL) and return false. */
bool fail(struct error *err, enum status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Put "context: " before the text that is already there and return false. */
bool fail_in(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "PATH: what: strerror(errno)"; returns false. */
bool fail_errno(struct error *err, const char *path, const char *what);

#endif
