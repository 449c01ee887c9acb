/* merge, export, import: databases. */
#include "cli/cli.h"

#include <stdio.h>

/* What the database holds now. */
static bool tell(const struct settings *s, struct store *store, const char *path, struct error *err)
{
    sqlite3_stmt *q = NULL;
    bool ok = sqlite3_prepare_v2(store_db(store), "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM items)", -1, &q,
                                 NULL) == SQLITE_OK && sqlite3_step(q) == SQLITE_ROW;
    if (ok)
        note(s, "%s: %d runs, %lld items", path, sqlite3_column_int(q, 0), (long long)sqlite3_column_int64(q, 1));
    else
        fail(err, STATUS_IO, "%s: %s", path, sqlite3_errmsg(store_db(store)));
    sqlite3_finalize(q);
    return ok;
}

int cmd_merge(const struct settings *s, struct error *err)
{
    struct store *into = NULL;
    bool ok = true;
    for (size_t i = 0; ok && i < s->rest.n; i++) {      /* before the output is made */
        struct store *from = NULL;
        ok = store_open(&from, s->rest.words[i], STORE_READ, err);
        store_close(from);
    }
    ok = ok && store_open(&into, s->out, STORE_WRITE, err);
    for (size_t i = 0; ok && i < s->rest.n; i++)
        ok = store_merge(into, s->rest.words[i], err);
    ok = ok && tell(s, into, s->out, err);
    store_close(into);
    return ok ? EXIT_DONE : EXIT_FAILED;
}

int cmd_export(const struct settings *s, struct error *err)
{
    struct store *store = NULL;
    if (!store_open(&store, s->db, STORE_READ, err))
        return EXIT_FAILED;
    FILE *out = s->out ? fopen(s->out, "wb") : stdout;
    bool ok = out ? store_export(store, out, s->run, err) : fail_errno(err, s->out, "cannot create");
    if (out && out != stdout && fclose(out) != 0 && ok)
        ok = fail_errno(err, s->out, "cannot write");
    store_close(store);
    return ok ? EXIT_DONE : EXIT_FAILED;
}

int cmd_import(const struct settings *s, struct error *err)
{
    struct store *store = NULL;
    bool ok = store_open(&store, s->db, STORE_WRITE, err);
    for (size_t i = 0; ok && i < s->rest.n; i++) {
        FILE *in = fopen(s->rest.words[i], "rb");
        ok = in ? store_import(store, in, s->rest.words[i], err) : fail_errno(err, s->rest.words[i], "cannot open");
        if (in)
            fclose(in);
    }
    ok = ok && tell(s, store, s->db, err);
    store_close(store);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
