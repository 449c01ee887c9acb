/* database.c - opening a results database, and SQLite's words turned into ours.
 *
 * WAL with synchronous=NORMAL: a commit is a write() into the log, which the kernel keeps when the process dies,
 * so SIGKILL loses nothing that was committed; only a power cut can take back the last commits (never half of
 * one), and the run then asks those items again.  FULL would cost an fsync an item and buy only that. */
#include "store/private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "store/schema.h"

enum { BUSY_MS = 30000, APPLICATION_ID = 1902406772 /* 'qdlt', as schema.sql sets it */ };

static const char *const statement_sql[ST_COUNT] = {
    [ST_HAVE_ITEM] = "SELECT 1 FROM items WHERE run = ? AND item = ?",
    [ST_ADD_ITEM] = "INSERT INTO items (run, item, group_name, prompt_hash, prompt_tokens, gold, answer, output, finish, "
                    "output_tokens, margin, elapsed_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
                    "ON CONFLICT (run, item) DO NOTHING",
    [ST_ADD_CHOICE] = "INSERT INTO choices (item, position, logprob, tokens, chars, bytes) VALUES (?, ?, ?, ?, ?, ?)",
    [ST_ADD_EXTRACTION] = "INSERT INTO extractions (item, rule, value) VALUES (?, ?, ?)",
    [ST_ADD_SCORE] = "INSERT INTO scores (item, metric, score) VALUES (?, ?, ?)",
    [ST_GET_CHOICES] = "SELECT logprob, tokens, chars, bytes FROM choices WHERE item = ? ORDER BY position",
    [ST_GET_EXTRACTIONS] = "SELECT rule, value FROM extractions WHERE item = ? ORDER BY rule",
    [ST_GET_SCORES] = "SELECT metric, score FROM scores WHERE item = ? ORDER BY metric",
};

/* One row a result code that users meet; the rest is SQLite's own text. */
static const struct {
    int code;
    enum status status;
    const char *words;
} sqlite_words[] = {
    { SQLITE_NOTADB, STATUS_FORMAT, "not a SQLite database" },
    { SQLITE_CORRUPT, STATUS_FORMAT, "the database is damaged" },
    { SQLITE_READONLY, STATUS_IO, "cannot be written: the file or its folder is read-only" },
    { SQLITE_FULL, STATUS_IO, "no room left: the disk or the database is full" },
    { SQLITE_BUSY, STATUS_IO, "another process has kept the database locked for 30 seconds" },
    { SQLITE_LOCKED, STATUS_IO, "another process has kept the database locked for 30 seconds" },
    { SQLITE_CANTOPEN, STATUS_IO, "cannot be opened; the file and its folder must be readable, and to add rows writable "
                                  "(SQLite keeps a -wal and a -shm file beside the database)" },
    { SQLITE_IOERR, STATUS_IO, "reading or writing failed (disk full or failing?)" },
    { SQLITE_NOMEM, STATUS_MEMORY, "out of memory" },
};

bool db_fail(struct store *s, const char *what, struct error *err)
{
    int code = sqlite3_errcode(s->db), extended = sqlite3_extended_errcode(s->db);
    for (size_t i = 0; i < ARRAY_LEN(sqlite_words); i++)
        if (sqlite_words[i].code == code)
            return fail(err, sqlite_words[i].status, "%s: %s: %s (SQLite %d: %s)", s->path, what, sqlite_words[i].words,
                        extended, sqlite3_errmsg(s->db));
    return fail(err, STATUS_INPUT, "%s: %s: %s", s->path, what, sqlite3_errmsg(s->db));
}

bool db_prepare(struct store *s, const char *sql, sqlite3_stmt **out, struct error *err)
{
    *out = NULL;
    return sqlite3_prepare_v2(s->db, sql, -1, out, NULL) == SQLITE_OK || db_fail(s, "query", err);
}

bool db_exec(struct store *s, const char *sql, struct error *err)
{
    return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK || db_fail(s, sql, err);
}

void db_bind(sqlite3_stmt *st, const char *types, ...)
{
    va_list ap;
    va_start(ap, types);
    for (int i = 1; *types; i++, types++)
        if (*types == 'i') {
            sqlite3_bind_int64(st, i, va_arg(ap, int64_t));
        } else if (*types == 'd') {
            sqlite3_bind_double(st, i, va_arg(ap, double));
        } else {
            const char *s = va_arg(ap, const char *);
            sqlite3_bind_text(st, i, s, -1, SQLITE_TRANSIENT);
        }
    va_end(ap);
}

bool db_done(struct store *s, sqlite3_stmt *st, const char *what, struct error *err)
{
    bool ok = sqlite3_step(st) == SQLITE_DONE || db_fail(s, what, err);
    sqlite3_reset(st);
    sqlite3_clear_bindings(st);
    return ok;
}

sqlite3_stmt *store_statement(struct store *s, enum statement id, struct error *err)
{
    if (!s->statements[id])
        db_prepare(s, statement_sql[id], &s->statements[id], err);
    else
        sqlite3_reset(s->statements[id]);
    return s->statements[id];
}

/* ---- opening ---- */

static bool query_int(struct store *s, const char *sql, int64_t *out, struct error *err)
{
    sqlite3_stmt *st;
    if (!db_prepare(s, sql, &st, err))
        return false;
    bool ok = sqlite3_step(st) == SQLITE_ROW || db_fail(s, "open", err);
    *out = ok ? sqlite3_column_int64(st, 0) : 0;
    sqlite3_finalize(st);
    return ok;
}

static int64_t own_version(void)
{
    const char *mark = "PRAGMA user_version = ", *at = strstr((const char *)embed_schema_sql, mark);
    return at ? strtoll(at + strlen(mark), NULL, 10) : 0;
}

/* Another connection may be switching the same new file to WAL; SQLite then says busy at once, without waiting. */
static bool use_wal(struct store *s, struct error *err)
{
    const struct timespec pause = { 0, 20 * 1000 * 1000 };
    int rc = SQLITE_BUSY;
    for (int i = 0; i < BUSY_MS / 20 && (rc == SQLITE_BUSY || rc == SQLITE_LOCKED); i++) {
        if (i)
            nanosleep(&pause, NULL);
        rc = sqlite3_exec(s->db, "PRAGMA journal_mode = WAL", NULL, NULL, NULL);
    }
    return rc == SQLITE_OK || db_fail(s, "open for writing", err);
}

static bool make_schema(struct store *s, struct error *err)
{
    if (!db_exec(s, "BEGIN IMMEDIATE", err))
        return false;
    int64_t tables;     /* asked again inside the lock: another process may have been first */
    bool ok = query_int(s, "SELECT count(*) FROM sqlite_master", &tables, err);
    if (ok && tables == 0 && sqlite3_exec(s->db, (const char *)embed_schema_sql, NULL, NULL, NULL) != SQLITE_OK)
        ok = db_fail(s, "making the tables", err);
    return (ok && db_exec(s, "COMMIT", err)) || (sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL), false);
}

static bool check_schema(struct store *s, struct error *err)
{
    static const char *const parts[] = { "models", "runs", "items", "choices", "extractions", "scores", "measures",
                                         "v_scores", "v_items", "v_choices", "v_runs" };
    int64_t version, application;
    if (!query_int(s, "PRAGMA user_version", &version, err) ||
        !query_int(s, "PRAGMA application_id", &application, err))
        return false;
    if (application != APPLICATION_ID)
        return fail(err, STATUS_FORMAT, "%s: a SQLite database, but not one of qdelta's (application id %lld, expected %d)",
                    s->path, (long long)application, APPLICATION_ID);
    if (version > own_version())
        return fail(err, STATUS_FORMAT, "%s: made by a newer qdelta: schema version %lld, this program knows up to %lld",
                    s->path, (long long)version, (long long)own_version());
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        char sql[80];
        sqlite3_stmt *st = NULL;
        snprintf(sql, sizeof sql, "SELECT * FROM %s", parts[i]);
        if (sqlite3_prepare_v2(s->db, sql, -1, &st, NULL) != SQLITE_OK)
            return fail(err, STATUS_FORMAT, "%s: schema version %lld, but %s cannot be read: %s", s->path,
                        (long long)version, parts[i], sqlite3_errmsg(s->db));
        sqlite3_finalize(st);
    }
    return true;
}

/* Bytes of the log beside the database; -1: there is none. */
static int64_t wal_bytes(const struct store *s)
{
    struct text wal = { 0 };
    uint64_t bytes = 1;
    text_printf(&wal, "%s-wal", s->path);
    bool there = text_ok(&wal, NULL) && file_exists(text_str(&wal));
    if (there)
        file_size(text_str(&wal), &bytes, NULL);
    text_free(&wal);
    return there ? (int64_t)bytes : -1;
}

/* A WAL database in a folder that cannot be written has no place for its -shm file, and one that only others may write would
 * keep ours.  Without a log beside it the file alone is the whole truth and may be read as it lies. */
static bool reopen_immutable(struct store *s)
{
    struct text uri = { 0 };
    bool pending = wal_bytes(s) > 0;
    text_puts(&uri, "file:");
    for (const char *p = s->path; *p; p++)
        if (strchr("%?#", *p))
            text_printf(&uri, "%%%02X", (unsigned char)*p);
        else
            text_putc(&uri, *p);
    text_puts(&uri, "?immutable=1");
    bool ok = false;
    if (!pending && !uri.failed) {
        sqlite3_close_v2(s->db);
        ok = sqlite3_open_v2(text_str(&uri), &s->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL) == SQLITE_OK;
    }
    text_free(&uri);
    return ok;
}

/* The folder stays as it is found.  Only a connection that could write takes the -wal and -shm files away that reading makes, so
 * this one can and is forbidden to; a log that was there before is a writer's, and stays. */
static bool open_reading(struct store *s, struct error *err)
{
    if (!file_exists(s->path))
        return fail(err, STATUS_IO, "%s: no such database (qdelta run makes it)", s->path);
    bool logged = wal_bytes(s) >= 0;
    if (sqlite3_open_v2(s->path, &s->db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK)
        return db_fail(s, "open for reading", err);
    if (sqlite3_db_readonly(s->db, "main") == 1 && !logged)
        reopen_immutable(s);
    sqlite3_busy_timeout(s->db, BUSY_MS);
    if (logged)
        sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    int64_t tables;
    if (!query_int(s, "SELECT count(*) FROM sqlite_master", &tables, err)) {
        int code = sqlite3_errcode(s->db);
        bool folder = code == SQLITE_CANTOPEN || code == SQLITE_READONLY;
        if (!folder || !reopen_immutable(s) || !query_int(s, "SELECT count(*) FROM sqlite_master", &tables, err))
            return false;
    }
    if (tables == 0)
        return fail(err, STATUS_FORMAT, "%s: an empty database: no run was stored in it", s->path);
    return check_schema(s, err) && db_exec(s, "PRAGMA query_only = ON", err);
}

static bool make_folder(const char *path, struct error *err)
{
    const char *slash = strrchr(path, '/');
    if (!slash || slash == path)
        return true;
    char *folder = str_dup_n(path, (size_t)(slash - path), err);
    bool ok = folder && make_dirs(folder, err);
    free(folder);
    return ok;
}

static bool open_writing(struct store *s, struct error *err)
{
    if (!make_folder(s->path, err))
        return false;
    if (sqlite3_open_v2(s->path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) != SQLITE_OK)
        return db_fail(s, "open for writing", err);
    sqlite3_busy_timeout(s->db, BUSY_MS);
    if (sqlite3_db_readonly(s->db, "main") == 1)
        return fail(err, STATUS_IO, "%s: the file is read-only, rows cannot be added", s->path);
    int64_t tables;
    /* A database that is not ours must be left as it is, so look before journal_mode writes to it. */
    if (!query_int(s, "SELECT count(*) FROM sqlite_master", &tables, err) || (tables > 0 && !check_schema(s, err)))
        return false;
    return use_wal(s, err) && db_exec(s, "PRAGMA synchronous = NORMAL", err) &&
           (tables > 0 || make_schema(s, err)) && check_schema(s, err);
}

bool store_open(struct store **out, const char *path, enum store_mode mode, struct error *err)
{
    *out = NULL;
    struct store *s = mem_new(1, sizeof *s, err);
    if (!s)
        return false;
    s->path = str_dup(path, err);
    bool ok = s->path && (mode == STORE_READ ? open_reading(s, err) : open_writing(s, err)) &&
              db_exec(s, "PRAGMA foreign_keys = ON", err);
    if (!ok) {
        store_close(s);
        return false;
    }
    *out = s;
    return true;
}

void store_close(struct store *s)
{
    if (!s)
        return;
    for (int i = 0; i < ST_COUNT; i++)
        sqlite3_finalize(s->statements[i]);
    sqlite3_close_v2(s->db);
    free(s->path);
    free(s);
}

sqlite3 *store_db(struct store *s)
{
    return s->db;
}

const char *store_path(const struct store *s)
{
    return s->path;
}

/* ---- transactions ---- */

/* IMMEDIATE takes the write lock at once, where the busy timeout waits; a lock taken in mid-transaction fails. */
bool store_begin(struct store *s, struct error *err)
{
    if (s->depth == 0 && !db_exec(s, "BEGIN IMMEDIATE", err))
        return false;
    s->depth++;
    return true;
}

bool store_commit(struct store *s, struct error *err)
{
    if (s->depth > 1) {
        s->depth--;
        return true;
    }
    if (db_exec(s, "COMMIT", err)) {
        s->depth = 0;
        return true;
    }
    store_rollback(s);
    return false;
}

void store_rollback(struct store *s)
{
    if (s->depth > 0 && !sqlite3_get_autocommit(s->db))
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    s->depth = 0;
}
