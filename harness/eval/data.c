/* data.c - a task's data: found, checked against its digests, read, grouped and named. */
#include <stdlib.h>
#include <string.h>

#include "task.h"

/* ---- where a name may lie ---- */

enum { MAX_PLACES = 8 };

struct places {
    const char *dir[MAX_PLACES];
    int n;
};

static struct places places_of(const struct task *t, const char **name)
{
    struct places p = { .n = 0 };
    const char *env = getenv("QDELTA_DATA");
    bool own = str_starts(*name, "./");
    if (own)
        *name += 2;
    else
        p.dir[p.n++] = t->options.data_dir ? t->options.data_dir : env && *env ? env : "data";
    for (size_t i = 0; i < t->spec.n_folders && p.n < MAX_PLACES; i++)
        p.dir[p.n++] = t->spec.folders[i];
    return p;
}

static bool not_found(const struct task *t, const char *name, const struct places *p, struct error *err)
{
    struct text looked = { 0 };
    for (int i = 0; i < p->n; i++)
        text_printf(&looked, "%s%s", i ? ", " : "", p->dir[i]);
    struct text rows = { 0 };
    path_join(&rows, t->spec.folders[0], "fetch.json");
    bool fetch = file_exists(text_str(&rows));
    fail(err, STATUS_INPUT, "%s: data file \"%s\" is not there (looked in %s); %s%s%sgive its folder with --data DIR", t->spec.path,
         name, text_str(&looked), fetch ? "get it with `qdelta fetch " : "", fetch ? t->spec.name : "", fetch ? "`, or " : "");
    text_free(&looked);
    text_free(&rows);
    return false;
}

bool data_find(const struct task *t, const char *name, struct text *path, struct error *err)
{
    struct places p = places_of(t, &name);
    for (int i = 0; i < p.n; i++) {
        text_clear(path);
        path_join(path, p.dir[i], name);
        if (file_exists(text_str(path)))
            return text_ok(path, err);
    }
    return not_found(t, name, &p, err);
}

static bool name_is_there(const struct task *t, const char *name)
{
    struct places p = places_of(t, &name);
    struct text path = { 0 };
    const char *star = strchr(name, '*');
    size_t len = star ? (size_t)(path_base(name) - name) : strlen(name);
    bool there = false;
    for (int i = 0; !there && i < p.n; i++) {
        text_clear(&path);
        path_join(&path, p.dir[i], name);
        if (star && path.len >= strlen(name) - len) {   /* the folder is enough */
            path.len -= strlen(name) - len;
            path.data[path.len] = '\0';
        }
        there = star ? dir_exists(text_str(&path)) : file_exists(text_str(&path));
    }
    text_free(&path);
    return there;
}

bool data_is_there(const struct task *t)
{
    const cJSON *files = t->spec.test.files;
    return name_is_there(t, cJSON_IsString(files) ? files->valuestring : files->child->valuestring);
}

/* ---- digests ---- */

struct sums {
    struct text bytes;
    bool on;
};

static bool sums_open(const struct task *t, struct sums *s, struct error *err)
{
    s->on = t->spec.sums && t->spec.pinned;
    for (size_t i = 0; s->on && i < t->spec.n_folders; i++) {
        struct text path = { 0 };
        path_join(&path, t->spec.folders[i], t->spec.sums);
        bool here = file_exists(text_str(&path));
        bool ok = here && file_read(text_str(&path), 1 << 20, &s->bytes, err);
        text_free(&path);
        if (here)
            return ok;
    }
    return !s->on || fail(err, STATUS_INPUT, "%s: \"sums\" names %s, which is not in the task's folder", t->spec.path, t->spec.sums);
}

/* Call see for each "digest  name" line; stops when it returns false. */
static bool sums_walk(const struct sums *s, bool (*see)(void *ctx, const char *hex, const char *name, size_t len), void *ctx)
{
    for (const char *line = text_str(&s->bytes); *line;) {
        size_t len = strcspn(line, "\n");
        if (len > 66 && !see(ctx, line, line + 66, len - 66))
            return false;
        line += len + (line[len] == '\n');
    }
    return true;
}

struct sum_query {
    const char *name;
    char hex[65];
    bool found;
};

static bool sum_match(void *ctx, const char *hex, const char *name, size_t len)
{
    struct sum_query *q = ctx;
    if (strlen(q->name) != len || memcmp(q->name, name, len) != 0)
        return true;
    memcpy(q->hex, hex, 64);
    q->found = true;
    return false;
}

/* Digest of the file into the version; an error when it is not the pinned one. */
static bool data_digest(const struct task *t, const struct sums *s, const char *name, const char *path, struct sha256 *version,
                        struct error *err)
{
    uint8_t digest[32];
    char hex[65];
    if (!sha256_file(path, digest, err))
        return false;
    sha256_add(version, digest, sizeof digest);
    hex_of(digest, sizeof digest, hex);
    struct sum_query q = { .name = str_starts(name, "./") ? name + 2 : name };
    if (!s->on)
        return true;
    sums_walk(s, sum_match, &q);
    if (!q.found)       /* files of the task's own folder need not be pinned */
        return str_starts(name, "./") ||
               fail(err, STATUS_INPUT, "%s: %s is not among the official files of %s", path, q.name, t->spec.sums);
    return strcmp(q.hex, hex) == 0 ||
           fail(err, STATUS_INPUT, "%s: SHA-256 is %s, expected %s (%s of task %s); other data on purpose needs \"pinned\": false",
                path, hex, q.hex, t->spec.sums, t->spec.name);
}

/* ---- names with a star ---- */

struct pattern {
    const char *name;           /* "mmlu/test/" + head "" + '*' + tail "_test.csv" */
    size_t dir, head, tail;     /* lengths; the star is between */
    bool star;
};

static bool pattern_of(const struct task *t, const char *name, struct pattern *p, struct error *err)
{
    const char *base = path_base(name), *star = strchr(name, '*');
    *p = (struct pattern){ .name = name, .dir = (size_t)(base - name), .star = star != NULL };
    if (!star)
        return true;
    if (star < base || strchr(star + 1, '*'))
        return fail(err, STATUS_INPUT, "%s: \"%s\": one * may stand in the last part of a name", t->spec.path, name);
    p->head = (size_t)(star - base);
    p->tail = strlen(star + 1);
    return true;
}

/* What the star stands for in file (NULL: no match). */
static const char *pattern_match(const struct pattern *p, const char *file, size_t len, size_t *matched)
{
    const char *base = p->name + p->dir;
    if (len <= p->head + p->tail || memcmp(file, base, p->head) != 0 ||
        memcmp(file + len - p->tail, base + p->head + 1, p->tail) != 0)
        return NULL;
    *matched = len - p->head - p->tail;
    return file + p->head;
}

struct missing {
    const struct pattern *p;
    char **names;
    size_t n;
    const char *absent;
    size_t absent_len;
};

static bool sum_is_there(void *ctx, const char *hex, const char *name, size_t len)
{
    struct missing *m = ctx;
    const char *start = str_starts(m->p->name, "./") ? m->p->name + 2 : m->p->name;
    size_t dir = m->p->dir - (size_t)(start - m->p->name), matched;
    (void)hex;
    if (len <= dir || memcmp(name, start, dir) != 0 || !pattern_match(m->p, name + dir, len - dir, &matched))
        return true;
    for (size_t i = 0; i < m->n; i++)
        if (strlen(m->names[i]) == len - dir && memcmp(m->names[i], name + dir, len - dir) == 0)
            return true;
    m->absent = name;
    m->absent_len = len;
    return false;
}

/* ---- groups ---- */

static bool group_id(struct task *t, const char *name, int *out, struct error *err)
{
    for (size_t i = t->n_groups; i-- > 0;)
        if (strcmp(t->groups[i].name, name) == 0)
            return *out = (int)i, true;
    if (!mem_grow(&t->groups, &t->groups_cap, t->n_groups + 1, sizeof *t->groups, err) ||
        !(t->groups[t->n_groups].name = str_dup(name, err)))
        return false;
    *out = (int)t->n_groups++;
    return true;
}

/* The group of each new record: what the star matched, or the template's text. */
static bool assign_groups(struct task *t, struct records *r, size_t first, const char *matched, struct error *err)
{
    struct text name = { 0 };
    char where[1024];
    bool ok = true;
    for (size_t i = first; ok && i < r->n; i++) {
        struct scope scope = { .record = r->list[i].fields };
        text_clear(&name);
        if (matched)
            text_puts(&name, matched);
        else if (t->spec.group && !template_render(t->spec.group, &scope, &name, err))
            ok = fail_in(err, "%s", record_where(r, &r->list[i], where, sizeof where));
        ok = ok && text_ok(&name, err) && group_id(t, text_str(&name), &r->list[i].group, err);
    }
    text_free(&name);
    return ok;
}

/* ---- reading ---- */

struct reading {
    struct task *t;
    struct records *into;
    const struct source *source;
    const struct sums *sums;
    struct sha256 *version;
};

static bool read_one(const struct reading *g, const char *name, const char *path, const char *matched, struct error *err)
{
    size_t first = g->into->n;
    return data_digest(g->t, g->sums, name, path, g->version, err) &&
           records_read(g->into, g->source->reader, path, &g->source->options, err) &&
           assign_groups(g->t, g->into, first, matched, err);
}

static int by_match(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;
    return strcmp(x[0], y[0]);
}

/* Every file of dir that matches, in the order of what the star stands for. */
static bool read_matches(const struct reading *g, const struct pattern *p, const char *dir, char **names, size_t n, struct error *err)
{
    char *(*found)[2] = mem_new(n, sizeof *found, err);
    size_t count = 0, len;
    bool ok = found != NULL;
    for (size_t i = 0; ok && i < n; i++) {
        const char *match = pattern_match(p, names[i], strlen(names[i]), &len);
        if (!match)
            continue;
        found[count][1] = names[i];
        ok = (found[count][0] = str_dup_n(match, len, err));
        count += ok;
    }
    if (count)
        qsort(found, count, sizeof *found, by_match);
    for (size_t i = 0; ok && i < count; i++) {
        struct text path = { 0 }, name = { 0 };
        path_join(&path, dir, found[i][1]);
        text_add(&name, p->name, p->dir);
        text_puts(&name, found[i][1]);
        ok = text_ok(&path, err) && text_ok(&name, err) && read_one(g, text_str(&name), text_str(&path), found[i][0], err);
        text_free(&path);
        text_free(&name);
    }
    for (size_t i = 0; i < count; i++)
        free(found[i][0]);
    free(found);
    return ok;
}

static size_t count_matches(const struct pattern *p, char **names, size_t n)
{
    size_t count = 0, len;
    for (size_t i = 0; i < n; i++)
        count += pattern_match(p, names[i], strlen(names[i]), &len) != NULL;
    return count;
}

static bool read_pattern(const struct reading *g, const struct pattern *p, struct error *err)
{
    const char *name = p->name;
    struct places places = places_of(g->t, &name);
    struct text dir = { 0 }, part = { 0 };
    text_add(&part, name, p->dir - (size_t)(name - p->name));
    for (int i = 0; i < places.n; i++) {
        char **names = NULL;
        size_t n = 0;
        text_clear(&dir);
        path_join(&dir, places.dir[i], text_str(&part));
        if (!dir_exists(text_str(&dir)) || !dir_names(text_str(&dir), &names, &n, err) || !count_matches(p, names, n)) {
            names_free(names, n);
            continue;
        }
        struct missing m = { .p = p, .names = names, .n = n };
        bool ok = !g->sums->on || sums_walk(g->sums, sum_is_there, &m) ||
                  fail(err, STATUS_INPUT, "%s: %.*s is not there, but %s lists it", text_str(&dir), (int)m.absent_len, m.absent,
                       g->t->spec.sums);
        ok = ok && read_matches(g, p, text_str(&dir), names, n, err);
        names_free(names, n);
        text_free(&dir);
        text_free(&part);
        return ok;
    }
    text_free(&dir);
    text_free(&part);
    return not_found(g->t, name, &places, err);
}

static bool read_name(const struct reading *g, const char *name, struct error *err)
{
    struct pattern p;
    if (!pattern_of(g->t, name, &p, err))
        return false;
    if (p.star)
        return read_pattern(g, &p, err);
    struct text path = { 0 };
    bool ok = data_find(g->t, name, &path, err) && read_one(g, name, text_str(&path), NULL, err);
    text_free(&path);
    return ok;
}

static bool read_source_files(const struct reading *g, struct error *err)
{
    const cJSON *files = g->source->files;
    if (cJSON_IsString(files) && !read_name(g, files->valuestring, err))
        return false;
    for (const cJSON *f = cJSON_IsArray(files) ? files->child : NULL; f; f = f->next)
        if (!read_name(g, f->valuestring, err))
            return false;
    if (!g->source->labels)
        return true;
    struct text path = { 0 };
    bool ok = data_find(g->t, g->source->labels, &path, err) &&
              data_digest(g->t, g->sums, g->source->labels, text_str(&path), g->version, err) &&
              records_label(g->into, 0, text_str(&path), err);
    text_free(&path);
    return ok;
}

/* "preamble": the text after the mark, one file for all or one a group. */
static bool read_preamble(struct task *t, const struct sums *sums, struct group *group, struct sha256 *version, struct error *err)
{
    struct text name = { 0 }, path = { 0 }, bytes = { 0 };
    for (const char *s = t->spec.preamble_files; *s; s++)
        if (*s == '*')
            text_puts(&name, group->name);
        else
            text_putc(&name, *s);
    bool ok = text_ok(&name, err) && data_find(t, text_str(&name), &path, err) &&
              data_digest(t, sums, text_str(&name), text_str(&path), version, err) && file_read(text_str(&path), 1 << 20, &bytes, err);
    if (ok) {
        const char *mark = strstr(text_str(&bytes), t->spec.preamble_after);
        const char *s = mark ? mark + strlen(t->spec.preamble_after) : "";
        size_t len = strlen(s);
        strip_space(&s, &len);
        ok = mark ? (group->preamble = str_dup_n(s, len, err)) != NULL
                  : fail(err, STATUS_INPUT, "%s: no \"%s\" in it", text_str(&path), t->spec.preamble_after);
        if (ok && utf8_check(s, len) != len)
            ok = fail(err, STATUS_FORMAT, "%s: not valid UTF-8", text_str(&path));
    }
    text_free(&name);
    text_free(&path);
    text_free(&bytes);
    return ok;
}

/* ---- names of items ---- */

static bool item_id(struct task *t, size_t i, struct text *out, struct error *err)
{
    const struct record *r = &t->records.list[i];
    const char *group = t->groups[r->group].name;
    struct scope scope = { .record = r->fields };
    if (t->spec.id)
        return template_render(t->spec.id, &scope, out, err);
    if (*group)
        text_printf(out, "%s/%d", group, r->row);
    else if (t->records.n_files > 1)
        text_printf(out, "%s/%d", path_base(t->records.files[r->file]), r->row);
    else
        text_printf(out, "%d", r->row);
    return text_ok(out, err);
}

static bool name_records(struct task *t, struct error *err)
{
    struct map seen = { 0 };
    struct text id = { 0 };
    char a[1024], b[1024];
    bool ok = (t->ids = mem_new(t->records.n, sizeof *t->ids, err));
    for (size_t i = 0; ok && i < t->records.n; i++) {
        int64_t before;
        text_clear(&id);
        if (!item_id(t, i, &id, err))
            ok = fail_in(err, "%s", record_where(&t->records, &t->records.list[i], a, sizeof a));
        else if (!(t->ids[i] = arena_str(&t->arena, text_str(&id), id.len, err)))
            ok = false;
        else if (map_get(&seen, t->ids[i], id.len, &before))
            ok = fail(err, STATUS_INPUT, "%s: id \"%s\" is also that of %s", record_where(&t->records, &t->records.list[i], a, sizeof a),
                      t->ids[i], record_where(&t->records, &t->records.list[before], b, sizeof b));
        else
            ok = map_put(&seen, t->ids[i], id.len, (int64_t)i, err);
    }
    map_free(&seen);
    text_free(&id);
    return ok;
}

/* ---- the whole ---- */

static bool set_version(struct task *t, const uint8_t digest[32], struct error *err)
{
    char hex[65];
    struct text v = { 0 };
    hex_of(digest, 32, hex);
    text_printf(&v, "%s-%s+%.12s", t->spec.name, t->spec.version, hex);
    t->full_version = v.data;
    return text_ok(&v, err);
}

static bool read_all(struct task *t, struct sums *sums, struct sha256 *version, struct error *err)
{
    struct reading test = { t, &t->records, &t->spec.test, sums, version };
    struct reading shots = { t, &t->shot_records, &t->spec.shots, sums, version };
    sha256_add(version, text_str(&t->spec.bytes), t->spec.bytes.len);
    if (!sums_open(t, sums, err) || !read_source_files(&test, err))
        return false;
    size_t n_groups = t->n_groups;      /* shots may bring groups of their own, which need no preamble */
    if (t->n_shots && !t->spec.shots_own_file && !read_source_files(&shots, err))
        return false;
    for (size_t i = 0; t->spec.preamble_files && i < n_groups; i++)
        if (!read_preamble(t, sums, &t->groups[i], version, err))
            return false;
    return name_records(t, err);
}

bool data_read(struct task *t, struct error *err)
{
    struct sums sums = { 0 };
    struct sha256 version;
    uint8_t digest[32];
    if (!sha256_init(&version, err))
        return false;
    bool ok = read_all(t, &sums, &version, err);
    sha256_end(&version, digest);
    text_free(&sums.bytes);
    return ok && set_version(t, digest, err);
}
