/* spec.c - task.json -> struct task_spec: every key known, every type checked, templates compiled. */
#include <stdlib.h>
#include <string.h>

#include "kinds.h"

enum { MAX_TASK_BYTES = 4 << 20, MAX_EXTENDS = 4 };

static const char *const top_keys[] = {
    "name", "title", "source", "licence", "url", "note", "version", "kind", "extends", "compat", "data",
    "prompt", "prompt_filter", "description", "target", "target_delimiter", "shot_delimiter", "shots", "group", "id", "choices", "gold",
    "gold_as", "metrics", "contexts", "continuation", "stops", "max_tokens", "max_tokens_chat", "extract", "normalise",
};
static const char *const data_keys[] = { "reader", "test", "array", "delimiter", "labels", "preamble", "sums", "pinned" };
static const char *const shot_keys[] = { "count", "files", "pick", "reader", "array", "delimiter", "labels", "prompt", "target" };
static const char *const choice_keys[] = { "of", "text", "label", "true" };
static const char *const extract_keys[] = { "name", "regex", "pick" };
static const char *const normalise_keys[] = { "delete", "ignore_case", "ignore_punctuation" };
static const char *const preamble_keys[] = { "files", "after" };
static const char *const gold_names[GOLD_COUNT] = { "letter", "index", "number", "text", "label", "true" };

static bool check_keys(const cJSON *o, const char *const *keys, size_t n, const char *where, struct error *err)
{
    for (const cJSON *m = o ? o->child : NULL; m; m = m->next) {
        bool known = false;
        for (size_t i = 0; i < n && m->string; i++)
            known |= strcmp(m->string, keys[i]) == 0;
        const char *near = m->string ? nearest_word(m->string, keys, n) : NULL;
        if (m->string && !known)
            return fail(err, STATUS_INPUT, "%s: unknown key \"%s\"%s%s%s", where, m->string, near ? "; nearest: \"" : "",
                        near ? near : "", near ? "\"" : "");
    }
    return true;
}

/* ---- optional members: absent leaves *out as it is ---- */

static bool opt_str(const cJSON *o, const char *key, const char **out, const char *where, struct error *err)
{
    return !json_get(o, key) || json_str(o, key, out, where, err);
}

static bool opt_count(const cJSON *o, const char *key, int *out, const char *where, struct error *err)
{
    int64_t v;
    if (!json_get(o, key))
        return true;
    if (!json_int(o, key, &v, where, err))
        return false;
    if (v < 0 || v > 1 << 20)
        return fail(err, STATUS_INPUT, "%s: \"%s\" is %lld, expected 0 to %d", where, key, (long long)v, 1 << 20);
    *out = (int)v;
    return true;
}

static bool opt_template(const cJSON *o, const char *key, struct template **out, const char *where, struct error *err)
{
    const char *text;
    char place[1100];
    snprintf(place, sizeof place, "%s: %s", where, key);
    return !json_get(o, key) || (json_str(o, key, &text, where, err) && template_new(out, text, place, err));
}

static bool str_list(struct task_spec *s, const cJSON *o, const char *key, const char ***out, int *n, struct error *err)
{
    const cJSON *list;
    if (!json_get(o, key))
        return true;
    if (!json_array(o, key, &list, s->path, err) ||
        !(*out = mem_new((size_t)cJSON_GetArraySize(list), sizeof **out, err)))
        return false;
    for (const cJSON *e = list->child; e; e = e->next) {
        if (!cJSON_IsString(e))
            return fail(err, STATUS_INPUT, "%s: \"%s\" holds something else than texts", s->path, key);
        (*out)[(*n)++] = e->valuestring;
    }
    return true;
}

/* ---- extends, compat: objects merged key by key ---- */

static bool merge(cJSON *into, const cJSON *over, struct error *err)
{
    for (const cJSON *m = over->child; m; m = m->next) {
        cJSON *old = cJSON_GetObjectItemCaseSensitive(into, m->string);
        if (cJSON_IsObject(m) && cJSON_IsObject(old)) {
            if (!merge(old, m, err))
                return false;
            continue;
        }
        cJSON *copy = cJSON_Duplicate(m, true);
        if (old)
            cJSON_DeleteItemFromObjectCaseSensitive(into, m->string);
        if (!copy || !cJSON_AddItemToObject(into, m->string, copy)) {
            cJSON_Delete(copy);
            return fail(err, STATUS_MEMORY, "out of memory for a task file");
        }
    }
    return true;
}

static bool folder_add(struct task_spec *s, const char *folder, struct error *err)
{
    if (!mem_grow(&s->folders, &s->folders_cap, s->n_folders + 1, sizeof *s->folders, err) ||
        !(s->folders[s->n_folders] = str_dup(folder, err)))
        return false;
    s->n_folders++;
    return true;
}

/* The task.json in folder over those it extends, as one object. */
static cJSON *load(struct task_spec *s, const char *folder, struct error *err)
{
    struct text path = { 0 };
    path_join(&path, folder, "task.json");
    size_t start = s->bytes.len;
    cJSON *root = NULL, *base = NULL;
    const char *extends = NULL;
    bool ok = text_ok(&path, err) && folder_add(s, folder, err) && file_read(text_str(&path), MAX_TASK_BYTES, &s->bytes, err) &&
              (root = json_parse(text_str(&s->bytes) + start, s->bytes.len - start, text_str(&path), err)) &&
              check_keys(root, top_keys, ARRAY_LEN(top_keys), text_str(&path), err) &&
              opt_str(root, "extends", &extends, text_str(&path), err);
    if (ok && !cJSON_IsObject(root))
        ok = fail(err, STATUS_FORMAT, "%s: not a JSON object", text_str(&path));
    if (ok && s->n_folders > MAX_EXTENDS)
        ok = fail(err, STATUS_INPUT, "%s: more than %d tasks extend each other", text_str(&path), MAX_EXTENDS);
    if (ok && extends) {
        struct text parent = { 0 };
        path_join(&parent, folder, extends);
        ok = text_ok(&parent, err) && (base = load(s, text_str(&parent), err)) && merge(base, root, err);
        if (ok) {
            cJSON_DeleteItemFromObjectCaseSensitive(base, "extends");
            cJSON *swap = root;
            root = base;
            base = swap;
        }
        text_free(&parent);
    }
    cJSON_Delete(base);
    text_free(&path);
    if (ok)
        return root;
    cJSON_Delete(root);
    return NULL;
}

/* ---- sections ---- */

static bool read_source(struct task_spec *s, const cJSON *o, const char *files_key, struct source *out, struct error *err)
{
    const char *reader = NULL, *delimiter = NULL, *names[8];
    if (!opt_str(o, "reader", &reader, s->path, err) || !opt_str(o, "array", &out->options.array, s->path, err) ||
        !opt_str(o, "delimiter", &delimiter, s->path, err) || !opt_str(o, "labels", &out->labels, s->path, err))
        return false;
    if (delimiter && strlen(delimiter) != 1)
        return fail(err, STATUS_INPUT, "%s: \"delimiter\" is \"%s\", expected one character", s->path, delimiter);
    if (delimiter)
        out->options.delimiter = delimiter[0];
    if (reader && !(out->reader = reader_find(reader))) {
        for (size_t i = 0; i < n_readers; i++)
            names[i] = readers[i].name;
        const char *near = nearest_word(reader, names, n_readers);
        return fail(err, STATUS_INPUT, "%s: \"reader\" is \"%s\"; nearest: \"%s\"", s->path, reader, near ? near : names[0]);
    }
    const cJSON *files = json_get(o, files_key);
    if (files)
        out->files = files;
    for (const cJSON *e = cJSON_IsArray(files) ? files->child : NULL; e; e = e->next)
        if (!cJSON_IsString(e))
            return fail(err, STATUS_INPUT, "%s: \"%s\" holds something else than file names", s->path, files_key);
    return !files || cJSON_IsString(files) || (cJSON_IsArray(files) && files->child) ||
           fail(err, STATUS_INPUT, "%s: \"%s\" is neither a file name nor a list of them", s->path, files_key);
}

static bool read_data(struct task_spec *s, struct error *err)
{
    const cJSON *o, *preamble = NULL;
    if (!json_object(s->root, "data", &o, s->path, err) || !check_keys(o, data_keys, ARRAY_LEN(data_keys), s->path, err) ||
        !read_source(s, o, "test", &s->test, err) || !opt_str(o, "sums", &s->sums, s->path, err))
        return false;
    if (!s->test.reader)
        return fail(err, STATUS_INPUT, "%s: \"data\" has no \"reader\"", s->path);
    if (!s->test.files)
        return fail(err, STATUS_INPUT, "%s: \"data\" has no \"test\" (the file name)", s->path);
    s->pinned = true;
    if (json_get(o, "pinned") && !json_bool(o, "pinned", &s->pinned, s->path, err))
        return false;
    if (!json_get(o, "preamble"))
        return true;
    s->preamble_after = "";
    return json_object(o, "preamble", &preamble, s->path, err) &&
           check_keys(preamble, preamble_keys, ARRAY_LEN(preamble_keys), s->path, err) &&
           json_str(preamble, "files", &s->preamble_files, s->path, err) &&
           opt_str(preamble, "after", &s->preamble_after, s->path, err);
}

static bool read_shots(struct task_spec *s, struct error *err)
{
    const cJSON *o = NULL;
    const char *pick = "first";
    s->shots = s->test;
    s->shots.files = NULL;
    s->shots.labels = NULL;
    if (json_get(s->root, "shots") && !json_object(s->root, "shots", &o, s->path, err))
        return false;
    if (!check_keys(o, shot_keys, ARRAY_LEN(shot_keys), s->path, err) || !read_source(s, o, "files", &s->shots, err) ||
        !opt_count(o, "count", &s->n_shots, s->path, err) || !opt_str(o, "pick", &pick, s->path, err) ||
        !opt_template(o, "prompt", &s->shot_prompt, s->path, err) || !opt_template(o, "target", &s->shot_target, s->path, err))
        return false;
    s->shots_own_file = !s->shots.files;
    s->shots_random = strcmp(pick, "random") == 0;
    return s->shots_random || strcmp(pick, "first") == 0 ||
           fail(err, STATUS_INPUT, "%s: \"pick\" is \"%s\", expected \"first\" or \"random\"", s->path, pick);
}

static bool read_choices(struct task_spec *s, const char *key, struct error *err)
{
    const cJSON *v = json_get(s->root, key);
    struct choice_spec *c = &s->choices;
    const char *of;
    if (cJSON_IsArray(v)) {
        if (!(c->fixed = mem_new((size_t)cJSON_GetArraySize(v), sizeof *c->fixed, err)))
            return false;
        for (const cJSON *e = v->child; e; e = e->next, c->n_fixed++)
            if (!cJSON_IsString(e))
                return fail(err, STATUS_INPUT, "%s: \"%s\" holds something else than texts", s->path, key);
            else if (!template_new(&c->fixed[c->n_fixed], e->valuestring, s->path, err))
                return false;
        return c->n_fixed || fail(err, STATUS_INPUT, "%s: \"%s\" is empty", s->path, key);
    }
    if (!cJSON_IsObject(v))
        return fail(err, STATUS_INPUT, "%s: \"%s\" is missing or neither a list nor an object", s->path, key);
    if (!check_keys(v, choice_keys, ARRAY_LEN(choice_keys), s->path, err) || !json_str(v, "of", &of, s->path, err) ||
        !(c->of = str_dup(of, err)) || !opt_template(v, "text", &c->text, s->path, err) ||
        !opt_template(v, "label", &c->label, s->path, err) || !opt_template(v, "true", &c->is_true, s->path, err))
        return false;
    return c->text || template_new(&c->text, "{item}", s->path, err);
}

static bool read_gold(struct task_spec *s, struct error *err)
{
    const char *as = "letter";
    if (!opt_str(s->root, "gold_as", &as, s->path, err) || !opt_template(s->root, "gold", &s->gold, s->path, err))
        return false;
    for (s->gold_as = 0; s->gold_as < GOLD_COUNT && strcmp(as, gold_names[s->gold_as]) != 0; s->gold_as++)
        ;
    if (s->gold_as == GOLD_COUNT) {
        const char *near = nearest_word(as, gold_names, GOLD_COUNT);
        return fail(err, STATUS_INPUT, "%s: \"gold_as\" is \"%s\"; nearest: \"%s\"", s->path, as, near ? near : gold_names[0]);
    }
    if (s->kind->generates)
        return true;
    if (s->gold_as == GOLD_TRUE ? !s->choices.is_true : !s->gold)
        return fail(err, STATUS_INPUT, "%s: no %s, which a task of kind %s needs", s->path,
                    s->gold_as == GOLD_TRUE ? "\"true\" in \"choices\"" : "\"gold\"", s->kind->name);
    return s->gold_as != GOLD_LABEL || s->choices.label ||
           fail(err, STATUS_INPUT, "%s: \"gold_as\" is \"label\", but \"choices\" has no \"label\"", s->path);
}

static bool read_generation(struct task_spec *s, struct error *err)
{
    const cJSON *rules = NULL, *normalise = NULL;
    s->max_tokens = 256;
    if (!str_list(s, s->root, "stops", &s->stops, &s->n_stops, err) ||
        !opt_count(s->root, "max_tokens", &s->max_tokens, s->path, err) ||
        (json_get(s->root, "extract") && !json_array(s->root, "extract", &rules, s->path, err)) ||
        (json_get(s->root, "normalise") && !json_object(s->root, "normalise", &normalise, s->path, err)) ||
        !check_keys(normalise, normalise_keys, ARRAY_LEN(normalise_keys), s->path, err))
        return false;
    for (const cJSON *r = rules ? rules->child : NULL; r; r = r->next)
        if (!check_keys(r, extract_keys, ARRAY_LEN(extract_keys), s->path, err))
            return false;
    s->max_tokens_chat = s->max_tokens;
    if (!opt_count(s->root, "max_tokens_chat", &s->max_tokens_chat, s->path, err))
        return false;
    if (!s->max_tokens || !s->max_tokens_chat)
        return fail(err, STATUS_INPUT, "%s: \"max_tokens\" is 0, expected at least 1", s->path);
    if (!s->target && !s->gold)
        return fail(err, STATUS_INPUT, "%s: neither \"target\" nor \"gold\": nothing to compare answers with", s->path);
    return extractor_new(&s->extractor, rules && rules->child ? rules : NULL, normalise, s->path, err);
}

static bool read_metrics(struct task_spec *s, struct error *err)
{
    if (!str_list(s, s->root, "metrics", &s->metrics, &s->n_metrics, err))
        return false;
    for (int i = 0; i < s->n_metrics; i++)
        if (!kind_has_metric(s, s->metrics[i]))
            return fail(err, STATUS_INPUT, "%s: kind %s has no metric \"%s\"", s->path, s->kind->name, s->metrics[i]);
    return s->n_metrics || kind_default_metrics(s, err);
}

static bool read_kind(struct task_spec *s, struct error *err)
{
    const char *kind, *names[8];
    if (!json_str(s->root, "kind", &kind, s->path, err))
        return false;
    for (size_t i = 0; i < n_task_kinds; i++) {
        names[i] = task_kinds[i].name;
        if (strcmp(kind, names[i]) == 0)
            s->kind = &task_kinds[i];
    }
    const char *near = nearest_word(kind, names, n_task_kinds);
    return s->kind || fail(err, STATUS_INPUT, "%s: \"kind\" is \"%s\"; nearest: \"%s\"", s->path, kind, near ? near : names[0]);
}

static bool read_texts(struct task_spec *s, struct error *err)
{
    const cJSON *o = s->root;
    const char *w = s->path, *filter = NULL;
    s->name = path_base(s->folders[0]);
    s->title = s->source = s->licence = "";
    s->target_delimiter = " ";
    s->shot_delimiter = "\n\n";
    if (!json_get(o, "prompt"))
        return fail(err, STATUS_INPUT, "%s: no \"prompt\"", w);
    return opt_str(o, "name", &s->name, w, err) && opt_str(o, "title", &s->title, w, err) &&
           opt_str(o, "source", &s->source, w, err) && opt_str(o, "licence", &s->licence, w, err) &&
           json_str(o, "version", &s->version, w, err) &&
           opt_str(o, "target_delimiter", &s->target_delimiter, w, err) &&
           opt_str(o, "shot_delimiter", &s->shot_delimiter, w, err) && opt_template(o, "prompt", &s->prompt, w, err) &&
           opt_template(o, "description", &s->description, w, err) && opt_template(o, "target", &s->target, w, err) &&
           opt_template(o, "group", &s->group, w, err) && opt_template(o, "id", &s->id, w, err) &&
           opt_template(o, "continuation", &s->continuation, w, err) && opt_str(o, "prompt_filter", &filter, w, err) &&
           (!filter || template_filter(s->prompt, filter, err));
}

static bool read_kind_keys(struct task_spec *s, struct error *err)
{
    if (s->kind->needs_choices && !read_choices(s, "choices", err))
        return false;
    if (s->kind->needs_contexts && (!read_choices(s, "contexts", err) ||
                                    !(s->continuation || fail(err, STATUS_INPUT, "%s: no \"continuation\"", s->path))))
        return false;
    return read_gold(s, err) && (!s->kind->generates || read_generation(s, err)) && read_metrics(s, err);
}

static bool apply_compat(struct task_spec *s, struct error *err)
{
    cJSON *over = cJSON_DetachItemFromObjectCaseSensitive(s->root, "compat");
    bool ok = !over || cJSON_IsObject(over) || fail(err, STATUS_INPUT, "%s: \"compat\" is not an object", s->path);
    ok = ok && check_keys(over, top_keys, ARRAY_LEN(top_keys), s->path, err) && (!over || merge(s->root, over, err));
    cJSON_Delete(over);
    return ok;
}

static void drop_compat(struct task_spec *s)
{
    cJSON_DeleteItemFromObjectCaseSensitive(s->root, "compat");
}

bool spec_read(struct task_spec *s, const char *folder, enum prompt_mode mode, struct error *err)
{
    *s = (struct task_spec){ 0 };
    struct text path = { 0 };
    path_join(&path, folder, "task.json");
    if (!text_ok(&path, err)) {
        text_free(&path);
        return false;
    }
    s->path = path.data;
    if (!(s->root = load(s, folder, err)))
        return false;
    if (mode != PROMPT_COMPAT)
        drop_compat(s);
    return (mode != PROMPT_COMPAT || apply_compat(s, err)) && read_texts(s, err) && read_kind(s, err) && read_data(s, err) &&
           read_shots(s, err) && read_kind_keys(s, err);
}

void spec_free(struct task_spec *s)
{
    struct template *all[] = { s->description, s->prompt, s->target, s->gold, s->group, s->id, s->shot_prompt, s->shot_target,
                               s->continuation, s->choices.text, s->choices.label, s->choices.is_true };
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        template_free(all[i]);
    for (int i = 0; i < s->choices.n_fixed; i++)
        template_free(s->choices.fixed[i]);
    free(s->choices.fixed);
    free(s->choices.of);
    names_free(s->folders, s->n_folders);
    free(s->path);
    free(s->metrics);
    free(s->stops);
    extractor_free(s->extractor);
    arena_free(&s->arena);
    text_free(&s->bytes);
    cJSON_Delete(s->root);
    *s = (struct task_spec){ 0 };
}
