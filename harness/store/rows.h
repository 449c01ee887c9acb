/* rows.h - inside store/: runs and items as structs, for reading back, merging and JSON Lines. */
#ifndef QDELTA_STORE_ROWS_H
#define QDELTA_STORE_ROWS_H

#include "store/store.h"

struct stored_run {             /* a whole row of runs and its model; strings live in the reader's arena */
    int64_t run;
    struct run_identity id;
    int64_t started_at;
    int finished;
    double seconds;
    int64_t prompt_tokens, new_tokens, peak_bytes;
};

enum field_kind { FIELD_TEXT, FIELD_INT, FIELD_I64, FIELD_U64, FIELD_SEED, FIELD_REAL };
enum field_role { ROLE_MODEL_KEY, ROLE_MODEL, ROLE_KEY, ROLE_FACT };
/* One row a column of models and runs: SQL column = JSON key, and where it lives in struct stored_run. */
struct field {
    const char *name;
    enum field_role role;
    enum field_kind kind;
    size_t offset;
};
extern const struct field run_fields[];
extern const int run_field_count;

/* The run with r's identity, made when missing, in the caller's transaction. */
bool run_find_or_add(struct store *s, const struct stored_run *r, int64_t *run, bool *found, struct error *err);
/* All runs (only == 0) or one, by id; the array and its strings belong to a. */
bool runs_read(struct store *s, int64_t only, struct arena *a, struct stored_run **out, int *n, struct error *err);

/* The items of a run, one after another in item order: for (...; items_next(..) && *more; ) */
struct item_reader {
    struct store *s;
    sqlite3_stmt *items;
    struct arena arena;         /* of the row at hand */
    struct item_row row;
};
bool items_open(struct item_reader *r, struct store *s, int64_t run, const char *only_item, struct error *err);
bool items_next(struct item_reader *r, bool *more, struct error *err);
void items_close(struct item_reader *r);

bool db_fail(struct store *s, const char *what, struct error *err);
bool db_exec(struct store *s, const char *sql, struct error *err);
bool db_prepare(struct store *s, const char *sql, sqlite3_stmt **out, struct error *err);
/* Bind by the letters of types: i int64_t, d double, s const char * (NULL: SQL NULL). */
void db_bind(sqlite3_stmt *st, const char *types, ...);
/* Step a statement that returns no row, then reset it. */
bool db_done(struct store *s, sqlite3_stmt *st, const char *what, struct error *err);
const char *store_path(const struct store *s);

#endif
