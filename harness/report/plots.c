/* plots.c - gnuplot as a child process; the scripts are written beside the plots, so a report can be drawn again. */
#include "report/plots.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "report/assets.h"

static const struct {
    const char *kind;
    const unsigned char *script;
} scripts[] = {
    { "size", embed_size_gp },         { "forest", embed_forest_gp }, { "flips", embed_flips_gp },
    { "subjects", embed_subjects_gp }, { "kld", embed_kld_gp },       { "history", embed_history_gp },
};

void plots_name(char *out, size_t size, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    vsnprintf(out, size, format, ap);
    va_end(ap);
    for (char *p = out; *p; p++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-", *p))
            *p = '_';
}

/* In the child: stdout nowhere, stderr into the pipe, then gnuplot in the report's folder.  -d: no user settings. */
static void become_gnuplot(const char *dir, int to_parent, const char *settings, const char *script)
{
    int null = open("/dev/null", O_RDWR);
    if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(to_parent, 2) < 0 || chdir(dir) != 0)
        _exit(126);
    execlp("gnuplot", "gnuplot", "-d", "-e", settings, script, (char *)NULL);
    _exit(127);
}

/* gnuplot quotes its script, points at the place and then says what is wrong: keep that, '"x.gp" line 3: ...'. */
static void keep_message(char *text)
{
    char *p = strstr(text, " line ");
    while (p && p > text && p[-1] != '\n')
        p--;
    p = p ? p : text + strspn(text, " \t\r\n^");
    p[strcspn(p, "\r\n")] = '\0';
    memmove(text, p, strlen(p) + 1);
}

static int run_gnuplot(const char *dir, const char *settings, const char *script, char *said, size_t size)
{
    int fds[2], status = -1;
    said[0] = '\0';
    if (pipe(fds) != 0)
        return 126;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        become_gnuplot(dir, fds[1], settings, script);
    close(fds[1]);
    size_t len = 0;
    char rest[256];
    for (ssize_t n; child > 0; len += (size_t)n) {
        bool room = len + 1 < size;
        n = room ? read(fds[0], said + len, size - len - 1) : read(fds[0], rest, sizeof rest);
        if (n < 0 && errno == EINTR)
            n = 0;
        else if (n <= 0)
            break;
        if (!room)
            n = 0;
    }
    said[len < size ? len : size - 1] = '\0';
    close(fds[0]);
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    keep_message(said);
    return child > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : 126;
}

static void note_failure(struct plots *p, int rc, const char *name, const char *said)
{
    if (!p->failed && rc == 127)
        snprintf(p->why, sizeof p->why, "gnuplot is not installed, so no plot was drawn; the numbers are in data/");
    else if (!p->failed)
        snprintf(p->why, sizeof p->why, "gnuplot could not draw %.60s.svg: %.150s", name, *said ? said : "no reason given");
    p->failed = true;
}

static bool write_in(const char *dir, const char *file, const char *data, size_t len, struct error *err)
{
    struct text path = { 0 };
    path_join(&path, dir, file);
    bool ok = text_ok(&path, err) && file_write(text_str(&path), data, len, err);
    text_free(&path);
    return ok;
}

static bool in_dir(const char *dir, const char *file, bool remove_it)
{
    struct text path = { 0 };
    path_join(&path, dir, file);
    bool there = !path.failed && (remove_it ? unlink(text_str(&path)) == 0 : file_exists(text_str(&path)));
    text_free(&path);
    return there;
}

bool plots_draw(struct plots *p, const char *kind, const char *name, const struct text *tsv, struct figure *out, struct error *err)
{
    char script[80], settings[400], said[400];
    const char *source = NULL;
    for (size_t i = 0; i < ARRAY_LEN(scripts); i++)
        if (strcmp(scripts[i].kind, kind) == 0)
            source = (const char *)scripts[i].script;
    snprintf(script, sizeof script, "plots/%s.gp", kind);
    snprintf(out->file, sizeof out->file, "plots/%s.svg", name);
    snprintf(out->data, sizeof out->data, "data/%s.tsv", name);
    snprintf(settings, sizeof settings, "data='%s'; out='%s'", out->data, out->file);
    in_dir(p->dir, out->file, true);            /* an old drawing must not pass for the new one */
    if (!source)
        return fail(err, STATUS_UNSUPPORTED, "there is no plot script \"%s\"", kind);
    if (!text_ok(tsv, err) || !write_in(p->dir, out->data, text_str(tsv), tsv->len, err) ||
        !write_in(p->dir, script, source, strlen(source), err))
        return false;
    int rc = run_gnuplot(p->dir, settings, script, said, sizeof said);
    if (rc != 0 || !in_dir(p->dir, out->file, false)) {
        note_failure(p, rc, name, said);
        in_dir(p->dir, out->file, true);
        out->file[0] = '\0';
    }
    return true;
}
