/* file.h - whole files: mapped, read, written aside and renamed; paths; clocks. */
#ifndef QDELTA_FILE_H
#define QDELTA_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "error.h"
#include "text.h"

struct mapping {            /* read-only; zero-initialise */
    const uint8_t *data;
    size_t size;
};
bool mapping_open(struct mapping *m, const char *path, struct error *err);   /* an empty file is an error */
void mapping_close(struct mapping *m);
/* n bytes at p are done with for now: their pages leave this process' memory and are read again when touched.  False:
 * p does not lie in m. */
bool mapping_forget(const struct mapping *m, const void *p, size_t n);

/* Append the file's bytes to out; refuses files over max_bytes (0: no limit). */
bool file_read(const char *path, size_t max_bytes, struct text *out, struct error *err);

/* A file that appears under its name only when whole: written to "PATH.partial", synced, renamed. */
struct file_writer {
    FILE *f;
    char *path, *partial;
};
bool file_writer_open(struct file_writer *w, const char *path, struct error *err);
bool file_writer_add(struct file_writer *w, const void *data, size_t len, struct error *err);
/* Put len bytes in the place of the first old_len; what follows moves. */
bool file_writer_head(struct file_writer *w, size_t old_len, const void *data, size_t len, struct error *err);
bool file_writer_commit(struct file_writer *w, struct error *err);
void file_writer_discard(struct file_writer *w);    /* removes the partial; fine after commit or on zeroed */

bool file_write(const char *path, const char *data, size_t len, struct error *err);  /* in one go, as above */

bool file_exists(const char *path);
bool file_same(const char *a, const char *b);              /* one file or folder under two names */
bool dir_exists(const char *path);
bool file_size(const char *path, uint64_t *bytes, struct error *err);
bool make_dirs(const char *path, struct error *err);        /* like mkdir -p */
/* "DIR/NAME" in out; NAME alone when it is absolute or DIR is empty. */
void path_join(struct text *out, const char *dir, const char *name);
const char *path_base(const char *path);                    /* after the last '/' */
/* Names in a folder (not "." and ".."), byte-sorted; free with names_free. */
bool dir_names(const char *path, char ***names, size_t *count, struct error *err);
void names_free(char **names, size_t count);

int64_t clock_ns(void);     /* monotonic */
int64_t wall_time_s(void);  /* since 1970 */

#endif
