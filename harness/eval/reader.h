/* reader.h - data files -> records.  readers[] has a row for each layout; every record becomes a JSON object
 * of named fields, so that templates need not know where it came from. */
#ifndef QDELTA_EVAL_READER_H
#define QDELTA_EVAL_READER_H

#include "base/base.h"

struct record {
    const cJSON *fields;        /* an object */
    int file;                   /* index into records.files */
    int row;                    /* from 0, within the file */
    int line;                   /* where it starts, from 1; 0 = not known */
    int group;                  /* filled by the task */
};
struct records {                /* zero-initialise */
    struct record *list;
    size_t n, cap;
    char **files;
    size_t n_files, files_cap;
    cJSON **roots;              /* what the records point into */
    size_t n_roots, roots_cap;
};
void records_free(struct records *r);

struct reader_options {
    const char *array;          /* json: dotted path to the array; NULL = the whole */
    char delimiter;             /* csv */
};
struct reader {
    const char *name;
    bool (*read)(struct records *r, const struct text *bytes, const struct reader_options *o, struct error *err);
};
extern const struct reader readers[];
extern const size_t n_readers;
const struct reader *reader_find(const char *name);

/* Append the records of the file; errors name file, row, line and field.  No records is an error. */
bool records_read(struct records *r, const struct reader *reader, const char *path, const struct reader_options *o,
                  struct error *err);
/* Line N of path becomes field `label` of record first + N. */
bool records_label(struct records *r, size_t first, const char *path, struct error *err);
/* "FILE: row 7 (line 9)" (rows counted from 1 in messages) */
const char *record_where(const struct records *r, const struct record *rec, char *buffer, size_t size);

#endif
