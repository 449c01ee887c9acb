#define _DEFAULT_SOURCE     /* madvise */
#include "file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "memory.h"

bool mapping_open(struct mapping *m, const char *path, struct error *err)
{
    *m = (struct mapping){ 0 };
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(err, path, "cannot open");
    struct stat st;
    bool ok = false;
    if (fstat(fd, &st) != 0)
        fail_errno(err, path, "cannot stat");
    else if (!S_ISREG(st.st_mode))
        fail(err, STATUS_IO, "%s: not a regular file", path);
    else if (st.st_size == 0)
        fail(err, STATUS_FORMAT, "%s: the file is empty", path);
    else {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        ok = p != MAP_FAILED;
        if (ok)
            *m = (struct mapping){ p, (size_t)st.st_size };
        else
            fail_errno(err, path, "cannot map");
    }
    close(fd);
    return ok;
}

void mapping_close(struct mapping *m)
{
    if (m->data)
        munmap((void *)(uintptr_t)m->data, m->size);
    *m = (struct mapping){ 0 };
}

bool mapping_forget(const struct mapping *m, const void *p, size_t n)
{
    const uint8_t *from = p;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first, last;
    if (!m->data || from < m->data || from >= m->data + m->size || n > (size_t)(m->data + m->size - from))
        return false;
    first = ((uintptr_t)from + page - 1) / page * page;
    last = ((uintptr_t)from + n) / page * page;
    if (first < last)
        madvise((void *)first, last - first, MADV_DONTNEED);
    return true;
}

bool file_read(const char *path, size_t max_bytes, struct text *out, struct error *err)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return fail_errno(err, path, "cannot open");
    char buffer[1 << 16];
    size_t n, start = out->len;
    bool ok = true;
    while (ok && (n = fread(buffer, 1, sizeof buffer, f)) > 0) {
        text_add(out, buffer, n);
        if (max_bytes && out->len - start > max_bytes)
            ok = fail(err, STATUS_INPUT, "%s: larger than %zu bytes, the most expected here", path, max_bytes);
    }
    if (ok && ferror(f))
        ok = fail_errno(err, path, "cannot read");
    fclose(f);
    return ok && text_ok(out, err);
}

bool file_writer_open(struct file_writer *w, const char *path, struct error *err)
{
    *w = (struct file_writer){ 0 };
    struct text partial = { 0 };
    text_printf(&partial, "%s.partial", path);
    w->path = str_dup(path, err);
    if (!w->path || !text_ok(&partial, err)) {
        text_free(&partial);
        file_writer_discard(w);
        return false;
    }
    w->partial = partial.data;
    w->f = fopen(w->partial, "w+b");
    if (w->f)
        return true;
    fail_errno(err, w->partial, "cannot create");
    file_writer_discard(w);
    return false;
}

bool file_writer_add(struct file_writer *w, const void *data, size_t len, struct error *err)
{
    return fwrite(data, 1, len, w->f) == len || fail_errno(err, w->partial, "cannot write");
}

/* Moves [from, end) by `by` bytes, from the far side on, so that nothing is overwritten before it was read. */
static bool move_bytes(FILE *f, off_t from, off_t end, off_t by)
{
    static const off_t piece = 1 << 20;
    uint8_t *buffer = malloc((size_t)piece);
    bool ok = buffer != NULL;
    for (off_t done = 0, n; ok && done < end - from; done += n) {
        n = end - from - done < piece ? end - from - done : piece;
        off_t at = by > 0 ? end - done - n : from + done;
        ok = fseeko(f, at, SEEK_SET) == 0 && fread(buffer, 1, (size_t)n, f) == (size_t)n && fseeko(f, at + by, SEEK_SET) == 0 &&
             fwrite(buffer, 1, (size_t)n, f) == (size_t)n;
    }
    free(buffer);
    return ok;
}

bool file_writer_head(struct file_writer *w, size_t old_len, const void *data, size_t len, struct error *err)
{
    off_t from = (off_t)old_len, by = (off_t)len - from, end = -1;
    bool ok = fseeko(w->f, 0, SEEK_END) == 0 && (end = ftello(w->f)) >= from;
    ok = ok && (by == 0 || move_bytes(w->f, from, end, by)) && fseeko(w->f, 0, SEEK_SET) == 0 &&
         fwrite(data, 1, len, w->f) == len && fflush(w->f) == 0 && (by >= 0 || ftruncate(fileno(w->f), end + by) == 0) &&
         fseeko(w->f, 0, SEEK_END) == 0;
    return ok || fail_errno(err, w->partial, "cannot write");
}

bool file_writer_commit(struct file_writer *w, struct error *err)
{
    bool ok = (fflush(w->f) == 0 && fsync(fileno(w->f)) == 0) || fail_errno(err, w->partial, "cannot write");
    if (fclose(w->f) != 0 && ok)
        ok = fail_errno(err, w->partial, "cannot close");
    w->f = NULL;
    if (ok && rename(w->partial, w->path) != 0)
        ok = fail_errno(err, w->path, "cannot rename into place");
    if (ok) {
        free(w->partial);
        w->partial = NULL;
    }
    file_writer_discard(w);
    return ok;
}

void file_writer_discard(struct file_writer *w)
{
    if (w->f)
        fclose(w->f);
    if (w->partial)
        unlink(w->partial);
    free(w->partial);
    free(w->path);
    *w = (struct file_writer){ 0 };
}

bool file_write(const char *path, const char *data, size_t len, struct error *err)
{
    struct file_writer w;
    if (!file_writer_open(&w, path, err))
        return false;
    if (file_writer_add(&w, data, len, err))
        return file_writer_commit(&w, err);
    file_writer_discard(&w);
    return false;
}

bool file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool file_same(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool dir_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool file_size(const char *path, uint64_t *bytes, struct error *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return fail_errno(err, path, "cannot stat");
    *bytes = (uint64_t)st.st_size;
    return true;
}

bool make_dirs(const char *path, struct error *err)
{
    char *copy = str_dup(path, err);
    if (!copy)
        return false;
    bool ok = true;
    for (char *p = copy + 1; ok && *copy; p++) {
        if (*p && *p != '/')
            continue;
        char keep = *p;
        *p = '\0';
        if (mkdir(copy, 0777) != 0 && !dir_exists(copy))
            ok = fail_errno(err, copy, "cannot make the folder");
        *p = keep;
        if (!keep)
            break;
    }
    free(copy);
    return ok;
}

void path_join(struct text *out, const char *dir, const char *name)
{
    if (name[0] != '/' && dir[0]) {
        text_puts(out, dir);
        if (dir[strlen(dir) - 1] != '/')
            text_putc(out, '/');
    }
    text_puts(out, name);
}

const char *path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

bool dir_names(const char *path, char ***names, size_t *count, struct error *err)
{
    *names = NULL;
    *count = 0;
    DIR *d = opendir(path);
    if (!d)
        return fail_errno(err, path, "cannot open the folder");
    size_t cap = 0;
    bool ok = true;
    for (struct dirent *e; ok && (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        char *name = str_dup(e->d_name, err);
        ok = name && mem_grow(names, &cap, *count + 1, sizeof **names, err);
        if (ok)
            (*names)[(*count)++] = name;
        else
            free(name);
    }
    closedir(d);
    if (!ok) {
        names_free(*names, *count);
        *names = NULL;
        *count = 0;
        return false;
    }
    if (*count)
        qsort(*names, *count, sizeof **names, by_bytes);
    return true;
}

void names_free(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

int64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t wall_time_s(void)
{
    return (int64_t)time(NULL);
}
