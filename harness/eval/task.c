/* task.c - the door's task functions: open, ask, list. */
#include "task.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kinds.h"

/* ---- where tasks lie ---- */

/* PREFIX/share/qdelta/tasks of the PREFIX/bin that the program was started from. */
static const char *installed_tasks(void)
{
    static char path[4096];
    static const char tail[] = "/../share/qdelta/tasks";
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - sizeof tail);
    char *slash = n > 0 ? (path[n] = '\0', strrchr(path, '/')) : NULL;
    if (!slash)
        return "/usr/local/share/qdelta/tasks";
    memcpy(slash, tail, sizeof tail);
    return path;
}

static const char *tasks_dir(const struct task_options *o)
{
    const char *env = getenv("QDELTA_TASKS");
    return o && o->tasks_dir ? o->tasks_dir : env && *env ? env : dir_exists("tasks") ? "tasks" : installed_tasks();
}

static bool has_task(const char *dir, const char *name, struct text *folder)
{
    struct text file = { 0 };
    text_clear(folder);
    if (dir)
        path_join(folder, dir, name);
    else
        text_puts(folder, name);
    while (folder->len > 1 && folder->data[folder->len - 1] == '/')
        folder->data[--folder->len] = '\0';
    path_join(&file, text_str(folder), "task.json");
    bool here = file_exists(text_str(&file));
    text_free(&file);
    return here;
}

bool task_folder(const char *name, const struct task_options *o, struct text *folder, struct error *err)
{
    const char *dir = tasks_dir(o);
    bool path = strchr(name, '/') || strcmp(name, ".") == 0;
    if ((!path && has_task(dir, name, folder)) || has_task(NULL, name, folder))
        return text_ok(folder, err);
    if (path)
        return fail(err, STATUS_INPUT, "%s: no task.json in it", name);
    char **names = NULL;
    size_t n = 0;
    if (!dir_exists(dir) || !dir_names(dir, &names, &n, NULL))
        n = 0;
    const char *near = nearest_word(name, (const char *const *)names, n);
    fail(err, STATUS_INPUT, "no task \"%s\": neither %s/%s nor a folder of that name holds a task.json%s%s", name, dir, name,
         near ? "; nearest: " : "", near ? near : "");
    names_free(names, n);
    return false;
}

/* ---- open ---- */

static bool check_items(const struct task *t, struct error *err)
{
    struct arena a = { 0 };
    struct item_text x;
    bool ok = true;
    for (int i = 0; ok && i < t->n_items; i++) {
        ok = item_render(t, i, &a, &x, err);
        if (i % 256 == 255)
            arena_free(&a);
    }
    arena_free(&a);
    return ok;
}

static bool open_parts(struct task *t, const char *name, struct error *err)
{
    struct text folder = { 0 };
    bool ok = task_folder(name, &t->options, &folder, err) && spec_read(&t->spec, text_str(&folder), t->options.mode, err);
    text_free(&folder);
    if (!ok)
        return false;
    t->n_shots = t->options.shots >= 0 ? t->options.shots : t->spec.n_shots;
    return data_read(t, err) && items_choose(t, err) && check_items(t, err);
}

bool task_open(struct task **out, const char *name, const struct task_options *o, struct error *err)
{
    *out = NULL;
    struct task *t = mem_new(1, sizeof *t, err);
    if (!t)
        return false;
    t->options = *o;
    bool ok = !o->data_dir || (t->data_dir = str_dup(o->data_dir, err));
    t->options.data_dir = t->data_dir;
    ok = ok && open_parts(t, name, err);
    t->options.tasks_dir = NULL;        /* borrowed while opening */
    if (ok) {
        *out = t;
        return true;
    }
    task_close(t);
    return false;
}

void task_close(struct task *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n_groups; i++) {
        free(t->groups[i].name);
        free(t->groups[i].preamble);
        free(t->groups[i].pool);
        free(t->groups[i].fixed);
    }
    free(t->groups);
    free(t->items);
    free(t->ids);
    free(t->data_dir);
    free(t->full_version);
    records_free(&t->records);
    records_free(&t->shot_records);
    arena_free(&t->arena);
    spec_free(&t->spec);
    free(t);
}

const char *task_name(const struct task *t)
{
    return t->spec.name;
}

const char *task_version(const struct task *t)
{
    return t->full_version;
}

const char *task_kind_name(const struct task *t)
{
    return t->spec.kind->name;
}

const char *task_metric(const struct task *t)
{
    return t->spec.metrics[0];
}

int task_size(const struct task *t)
{
    return t->n_items;
}

int task_shots(const struct task *t)
{
    return t->n_shots;
}

bool task_prompt(const struct task *t, int i, struct text *out, size_t *prefix_bytes, const char **item_id, struct error *err)
{
    struct arena a = { 0 };
    struct item_text x;
    size_t prefix;
    bool ok = item_render(t, i, &a, &x, err);
    if (ok) {
        item_prompt(t, &x, x.query ? x.query : x.queries[0], out, &prefix);
        if (prefix_bytes)
            *prefix_bytes = prefix;
        if (item_id)
            *item_id = t->items[i].id;
        ok = text_ok(out, err);
    }
    arena_free(&a);
    return ok;
}

/* ---- list ---- */

static bool info_of(const char *folder, const struct task_options *o, struct task_info *info, struct error *err)
{
    struct task_spec s;
    bool ok = spec_read(&s, folder, o ? o->mode : PROMPT_STABLE, err);
    if (ok) {
        *info = (struct task_info){ str_dup(s.name, err), str_dup(s.title, err), str_dup(s.kind->name, err), str_dup(s.licence, err),
                                    str_dup(s.source, err), s.n_shots, false };
        ok = info->name && info->title && info->kind && info->licence && info->source;
        struct task probe = { .spec = s };
        probe.options.data_dir = o ? o->data_dir : NULL;
        info->data_found = data_is_there(&probe);
    }
    spec_free(&s);
    return ok;
}

bool task_list(const struct task_options *o, struct task_info **out, int *n, struct error *err)
{
    const char *dir = tasks_dir(o);
    char **names = NULL;
    size_t count = 0;
    *out = NULL;
    *n = 0;
    if (!dir_names(dir, &names, &count, err))
        return false;
    bool ok = (*out = mem_new(count, sizeof **out, err));
    struct text folder = { 0 };
    for (size_t i = 0; ok && i < count; i++)
        if (has_task(dir, names[i], &folder))
            ok = info_of(text_str(&folder), o, &(*out)[(*n)++], err);
    text_free(&folder);
    names_free(names, count);
    if (!ok) {
        task_list_free(*out, *n);
        *out = NULL;
        *n = 0;
    }
    return ok;
}

void task_list_free(struct task_info *list, int n)
{
    for (int i = 0; list && i < n; i++) {
        free(list[i].name);
        free(list[i].title);
        free(list[i].kind);
        free(list[i].licence);
        free(list[i].source);
    }
    free(list);
}
