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
    const char *tag;                                    /* NULL or "": none; sets runs apart on purpose (a night's date) */
    /* facts of the run, not of its identity: */
    const char *program_version, *commit, *kernels;
    int threads;
    int items_expected;
    const char *command;
};
/* Find the run with this identity or make it; *resumed tells which.  Same label with other weights is another run. */
bool store_run(struct store *s, const struct run_identity *id, int64_t *run, bool *resumed, struct error *err);
bool store_have_item(struct store *s, int64_t run, const char *item_id);
/* An item that is there already with the same content (time aside) is left as it is: another process was
 * first.  With other content it is an error naming what differs: one of the two processes computed wrongly. */
bool store_put_item(struct store *s, int64_t run, const struct item_row *row, struct error *err);
/* Totals of this invocation, added to what earlier ones reported; finished says that every item was answered. */
bool store_run_totals(struct store *s, int64_t run, bool finished, double seconds, int64_t prompt_tokens,
                      int64_t new_tokens, uint64_t peak_bytes, struct error *err);

/* KLD and similar measures of a model against a base, one row a (model, base, text, act, name); said again, the
 * new value counts.  Reports know the names kld_mean, kld_se, kld_min, kld_p1, kld_p10, kld_p50, kld_p90, kld_p99,
 * kld_max, same_top, delta_p_mean, delta_p_rms, ppl, ppl_base, tokens; others are listed as they are. */
bool store_put_measure(struct store *s, const char *model_sha256, const char *base_sha256, const char *text_sha256,
                       const char *act, const char *name, double value, struct error *err);

/* Transactions that the caller spans over several puts (a merge, a long import); puts inside join it. */
bool store_begin(struct store *s, struct error *err);
bool store_commit(struct store *s, struct error *err);
void store_rollback(struct store *s);

/* merge A.db B.db .. -> C.db; export to / import from JSON Lines.  Whole or not at all; what is there already
 * is left alone, and items of one run that differ between the two are an error. */
bool store_merge(struct store *into, const char *from_path, struct error *err);
bool store_export(struct store *s, FILE *out, int64_t run /* 0 = all */, struct error *err);
bool store_import(struct store *s, FILE *in, const char *where, struct error *err);

#endif
