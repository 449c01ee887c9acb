/* store.h - the door of store/: scored items <-> SQLite rows.  Knows no model.
 *
 * Schema in results/schema.sql (PRAGMA user_version tells its version).  WAL, foreign keys, one transaction an
 * item: a killed run loses nothing that was reported and goes on when said again.  Several processes may
 * write one database at once, also the same run (items are unique per run). */
#ifndef QDELTA_STORE_H
#define QDELTA_STORE_H

#include <sqlite3.h>

#include "base/base.h"

struct store;

enum store_mode { STORE_READ, STORE_WRITE /* creates file and schema when missing */ };
bool store_open(struct store **out, const char *path, enum store_mode mode, struct error *err);
void store_close(struct store *s);          /* fine on NULL */
sqlite3 *store_db(struct store *s);         /* for reports: read-only SQL on the documented views */

/* What makes two invocations the same run: everything that can change a row.  Strings are borrowed. */
struct run_identity {
    const char *model_label, *model_path, *model_sha256;
    const char *arch, *recipe, *format, *method;        /* recipe: tensor types; method: who chose the values, "" unknown */
    double bits_per_weight;
    uint64_t file_bytes;
    const char *tokenizer_hash, *template_name;         /* "" when none */
    const char *task, *task_version, *metric, *prompt_mode;
    int shots, limit;
    uint64_t seed;
    const char *shard;                                  /* "1/1" */
    const char *act;
    /* facts of the run, not of its identity: */
    const char *program_version, *commit, *kernels;
    int threads;
    int items_expected;
    const char *command;
};
/* Find the run with this identity or make it; *resumed tells which.  Same label with other weights is another run. */
bool store_run(struct store *s, const struct run_identity *id, int64_t *run, bool *resumed, struct error *err);
bool store_have_item(struct store *s, int64_t run, const char *item_id);
bool store_put_item(struct store *s, int64_t run, const struct item_row *row, struct error *err);
/* Totals of a finished (or stopped) run. */
bool store_run_totals(struct store *s, int64_t run, bool finished, double seconds, int64_t prompt_tokens,
                      int64_t new_tokens, uint64_t peak_bytes, struct error *err);

/* KLD and similar measures of a model against a base, one row a (model, base, text). */
bool store_put_measure(struct store *s, const char *model_sha256, const char *base_sha256, const char *text_sha256,
                       const char *act, const char *name, double value, struct error *err);

/* merge A.db B.db .. -> C.db; export to / import from JSON Lines. */
bool store_merge(struct store *into, const char *from_path, struct error *err);
bool store_export(struct store *s, FILE *out, int64_t run /* 0 = all */, struct error *err);
bool store_import(struct store *s, FILE *in, const char *where, struct error *err);

#endif
