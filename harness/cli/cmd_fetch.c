/* fetch: a task's official files, named in tasks/NAME/fetch.json, into the data folder.
 *
 * Nothing else in the program opens a connection.  Every file is checked by size and SHA-256 before it
 * appears under its name; one that is there already and right is left alone.  Each row: url, file (below the
 * data folder), bytes, sha256, and for tar archives unpack (members to take, their first folder dropped). */
#include "cli/cli.h"

#include <curl/curl.h>
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

struct item {
    const char *url, *file, *sha256;
    int64_t bytes;
    const cJSON *unpack;
};

struct download {
    struct file_writer writer;
    struct sha256 sha;
    int64_t got, want;
    struct progress *progress;
    struct error *err;
};

static size_t receive(char *data, size_t size, size_t n, void *ctx)
{
    struct download *d = ctx;
    size_t len = size * n;
    d->got += (int64_t)len;
    if (d->got > d->want || !file_writer_add(&d->writer, data, len, d->err))
        return 0;
    sha256_add(&d->sha, data, len);
    progress_show(d->progress, (int)(d->got >> 10), (int)(d->want >> 10), 0, 0);
    return len;
}

static bool perform(const struct item *it, struct download *d, struct error *err)
{
    char text[CURL_ERROR_SIZE] = "";
    CURL *c = curl_easy_init();
    if (!c)
        return fail(err, STATUS_MEMORY, "cannot start a download");
    curl_easy_setopt(c, CURLOPT_URL, it->url);
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(c, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, text);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, 30L);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, receive);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, d);
    CURLcode code = curl_easy_perform(c);
    curl_easy_cleanup(c);
    if (code == CURLE_OK || err->status != STATUS_OK)
        return code == CURLE_OK;
    if (d->got > d->want)
        return fail(err, STATUS_IO, "%s: longer than the %lld bytes expected", it->url, (long long)it->bytes);
    return fail(err, STATUS_IO, "%s: %s", it->url, text[0] ? text : curl_easy_strerror(code));
}

static bool download(const struct settings *s, const struct item *it, const char *path, struct error *err)
{
    struct progress progress;
    struct download d = { .want = it->bytes, .progress = &progress, .err = err };
    uint8_t digest[32];
    char hex[65];
    if (!file_writer_open(&d.writer, path, err))
        return false;
    if (!sha256_init(&d.sha, err)) {
        file_writer_discard(&d.writer);
        return false;
    }
    progress_start(&progress, it->file, s->quiet);
    bool ok = perform(it, &d, err);
    progress_end(&progress);
    sha256_end(&d.sha, digest);
    hex_of(digest, 32, hex);
    if (ok && d.got != it->bytes)
        ok = fail(err, STATUS_IO, "%s: %lld bytes, expected %lld", it->url, (long long)d.got, (long long)it->bytes);
    if (ok && strcmp(hex, it->sha256) != 0)
        ok = fail(err, STATUS_IO, "%s: SHA-256 %s, expected %s", it->url, hex, it->sha256);
    if (ok)
        return file_writer_commit(&d.writer, err);
    file_writer_discard(&d.writer);
    return false;
}

static bool is_right(const struct item *it, const char *path)
{
    uint64_t size;
    uint8_t digest[32];
    char hex[65];
    if (!file_size(path, &size, NULL) || (int64_t)size != it->bytes || !sha256_file(path, digest, NULL))
        return false;
    hex_of(digest, 32, hex);
    return strcmp(hex, it->sha256) == 0;
}

/* tar -xf ARCHIVE -C its folder --strip-components=1 MEMBERS.. */
static bool unpack(const struct item *it, const char *path, struct error *err)
{
    static char tar[] = "tar", x[] = "-xf", c[] = "-C", strip[] = "--strip-components=1";
    char *argv[32] = { tar, x, NULL, c, NULL, strip };
    int n = 6, code = 0;
    const cJSON *member;
    char *copy = str_dup(path, err), *folder = str_dup(path, err);
    if (!copy || !folder)
        return free(copy), free(folder), false;
    folder[path_base(folder) - folder] = '\0';
    argv[2] = copy;
    argv[4] = folder;
    cJSON_ArrayForEach(member, it->unpack)
        if (cJSON_IsString(member) && n < 31)
            argv[n++] = member->valuestring;
    pid_t child;
    bool ok = posix_spawnp(&child, "tar", NULL, NULL, argv, environ) == 0 || fail_errno(err, "tar", "cannot run");
    if (ok && (waitpid(child, &code, 0) != child || code != 0))
        ok = fail(err, STATUS_IO, "%s: tar could not unpack it", path);
    free(copy);
    free(folder);
    return ok;
}

static bool fetch_item(const struct settings *s, const struct item *it, const char *data, struct error *err)
{
    struct text path = { 0 };
    if (it->file[0] == '/' || strstr(it->file, ".."))
        return fail(err, STATUS_FORMAT, "\"file\" %s leaves the data folder", it->file);
    path_join(&path, data, it->file);
    char *folder = str_dup(text_str(&path), err);
    bool ok = folder != NULL;
    if (ok) {
        folder[path_base(folder) - folder] = '\0';
        ok = make_dirs(folder, err);
    }
    if (ok && is_right(it, text_str(&path))) {
        note(s, "%s: there already, size and SHA-256 are right", text_str(&path));
    } else if (ok) {
        ok = download(s, it, text_str(&path), err);
        if (ok)
            note(s, "%s: %lld bytes from %s, SHA-256 %.12s..., as expected", text_str(&path), (long long)it->bytes, it->url, it->sha256);
    }
    if (ok && it->unpack)
        ok = unpack(it, text_str(&path), err);
    free(folder);
    text_free(&path);
    return ok;
}

static bool fetch_task(const struct settings *s, const char *name, const char *data, struct error *err)
{
    struct text path = { 0 };
    struct task_options o = { .shots = -1, .shard = 1, .shards = 1 };
    if (!task_folder(name, &o, &path, err))
        return text_free(&path), false;
    text_puts(&path, "/fetch.json");
    if (!file_exists(text_str(&path))) {
        fail(err, STATUS_INPUT, "%s: no fetch.json, so its files have no official address here; its README says where they come from", name);
        return text_free(&path), false;
    }
    cJSON *rows = json_parse_file(text_str(&path), 1 << 20, err);
    const cJSON *row;
    bool ok = rows != NULL;
    cJSON_ArrayForEach(row, rows) {
        struct item it = { .unpack = json_get(row, "unpack") };
        ok = ok && json_str(row, "url", &it.url, text_str(&path), err) && json_str(row, "file", &it.file, text_str(&path), err) &&
             json_str(row, "sha256", &it.sha256, text_str(&path), err) && json_int(row, "bytes", &it.bytes, text_str(&path), err) &&
             fetch_item(s, &it, data, err);
    }
    cJSON_Delete(rows);
    text_free(&path);
    return ok;
}

int cmd_fetch(const struct settings *s, struct error *err)
{
    const char *env = getenv("QDELTA_DATA"), *data = s->data ? s->data : env && *env ? env : "data";
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
        return fail(err, STATUS_MEMORY, "cannot start libcurl"), EXIT_FAILED;
    bool ok = true;
    for (size_t i = 0; ok && i < s->rest.n; i++)
        ok = fetch_task(s, s->rest.words[i], data, err);
    curl_global_cleanup();
    return ok ? EXIT_DONE : EXIT_FAILED;
}
