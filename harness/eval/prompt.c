/* prompt.c - which items, which shots, and their texts. */
#include <stdlib.h>
#include <string.h>

#include "kinds.h"

enum { COMPAT_SEED = 1234 };        /* the reference harness's few-shot seed */

/* ---- hashes that decide: of (seed, what, id) alone ---- */

static uint64_t decide(const struct task *t, const char *what, const char *id)
{
    struct text key = { 0 };
    text_printf(&key, "%llu|%s|%s", (unsigned long long)t->options.seed, what, id);
    uint64_t h = hash_bytes(text_str(&key), key.len);
    text_free(&key);
    return h;
}

struct ranked {
    uint64_t hash;
    int index;
};

static int by_hash(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    return x->hash != y->hash ? (x->hash < y->hash ? -1 : 1) : x->index - y->index;
}

static int by_index(const void *a, const void *b)
{
    return ((const struct ranked *)a)->index - ((const struct ranked *)b)->index;
}

/* ---- shots ---- */

static const struct records *shot_set(const struct task *t)
{
    return t->spec.shots_own_file ? &t->records : &t->shot_records;
}

/* A group's shots come from records of its own group, or from all of them where shots know no groups. */
static bool build_pools(struct task *t, struct error *err)
{
    const struct records *set = shot_set(t);
    int none = -1;
    for (size_t g = 0; g < t->n_groups; g++)
        if (!*t->groups[g].name)
            none = (int)g;
    for (size_t g = 0; g < t->n_groups; g++) {
        struct group *group = &t->groups[g];
        if (!(group->pool = mem_new(set->n, sizeof *group->pool, err)))
            return false;
        for (size_t i = 0; i < set->n; i++)
            if (set->list[i].group == (int)g || (set->list[i].group == none && !t->spec.shots_own_file))
                group->pool[group->n_pool++] = (int)i;
    }
    return true;
}

static bool check_pool(const struct task *t, const struct group *g, struct error *err)
{
    int have = g->n_pool - (t->spec.shots_own_file ? 1 : 0);
    return have >= t->n_shots ||
           fail(err, STATUS_INPUT, "%s: %d shots asked for, %s%s%s has %d", t->spec.path, t->n_shots,
                *g->name ? "group \"" : "the set", g->name, *g->name ? "\"" : "", have);
}

/* Stable: the records of least hash, one more where the item asked may be among them. */
static bool fix_shots(struct task *t, struct group *g, struct error *err)
{
    const struct records *set = shot_set(t);
    struct ranked *rank = mem_new((size_t)g->n_pool, sizeof *rank, err);
    if (!rank)
        return false;
    char id[64];
    for (int i = 0; i < g->n_pool; i++) {
        snprintf(id, sizeof id, "%d/%d", set->list[g->pool[i]].file, set->list[g->pool[i]].row);
        rank[i] = (struct ranked){ decide(t, "shot", id), g->pool[i] };
    }
    qsort(rank, (size_t)g->n_pool, sizeof *rank, by_hash);
    g->n_fixed = t->n_shots + (t->spec.shots_own_file ? 1 : 0);
    if ((g->fixed = mem_new((size_t)g->n_fixed, sizeof *g->fixed, err)))
        for (int i = 0; i < g->n_fixed; i++)
            g->fixed[i] = rank[i].index;
    free(rank);
    return g->fixed != NULL;
}

/* n_shots of `from`, without the record itself where shots come from the test file. */
static void take_shots(const struct task *t, const int *from, int n, int record, int *out)
{
    int taken = 0;
    for (int i = 0; i < n && taken < t->n_shots; i++)
        if (!t->spec.shots_own_file || from[i] != record)
            out[taken++] = from[i];
}

struct drawing {
    struct py_random *generators;       /* one a group: a task of its own in the reference harness */
    int *drawn, *scratch;
};

static void draw_shots(const struct task *t, struct drawing *d, int group, int record, int *out)
{
    const struct group *g = &t->groups[group];
    int n = t->n_shots + (t->spec.shots_own_file ? 1 : 0);
    py_random_sample(&d->generators[group], g->n_pool, n, d->drawn, d->scratch);
    for (int i = 0; i < n; i++)
        d->drawn[i] = g->pool[d->drawn[i]];
    take_shots(t, d->drawn, n, record, out);
}

static bool item_shots(struct task *t, struct drawing *d, int record, int *out, struct error *err)
{
    int group = t->records.list[record].group;
    struct group *g = &t->groups[group];
    if (!check_pool(t, g, err))
        return false;
    if (!t->spec.shots_random)
        take_shots(t, g->pool, g->n_pool, record, out);
    else if (t->options.mode == PROMPT_COMPAT)
        draw_shots(t, d, group, record, out);
    else {
        if (!g->fixed && !fix_shots(t, g, err))
            return false;
        take_shots(t, g->fixed, g->n_fixed, record, out);
    }
    return true;
}

static bool drawing_open(struct drawing *d, const struct task *t, struct error *err)
{
    size_t pool = shot_set(t)->n + 1;
    d->generators = mem_new(t->n_groups, sizeof *d->generators, err);
    d->drawn = mem_new((size_t)t->n_shots + 1, sizeof *d->drawn, err);
    d->scratch = mem_new(pool, sizeof *d->scratch, err);
    for (size_t g = 0; d->generators && g < t->n_groups; g++)
        py_random_seed(&d->generators[g], COMPAT_SEED);
    return d->generators && d->drawn && d->scratch;
}

static void drawing_close(struct drawing *d)
{
    free(d->generators);
    free(d->drawn);
    free(d->scratch);
}

/* ---- the items of this run ---- */

/* Mark the records that --limit keeps. */
static bool mark_limit(const struct task *t, bool *keep, struct error *err)
{
    int n = (int)t->records.n, limit = t->options.limit;
    if (limit <= 0 || limit > n)
        limit = n;
    if (t->options.mode == PROMPT_COMPAT || limit == n) {
        for (int i = 0; i < limit; i++)
            keep[i] = true;
        return true;
    }
    struct ranked *rank = mem_new((size_t)n, sizeof *rank, err);
    if (!rank)
        return false;
    for (int i = 0; i < n; i++)
        rank[i] = (struct ranked){ decide(t, "item", t->ids[i]), i };
    qsort(rank, (size_t)n, sizeof *rank, by_hash);
    qsort(rank, (size_t)limit, sizeof *rank, by_index);
    for (int i = 0; i < limit; i++)
        keep[rank[i].index] = true;
    free(rank);
    return true;
}

static bool in_shard(const struct task *t, int i)
{
    int shards = t->options.shards;
    return shards < 2 || (int)(decide(t, "shard", t->ids[i]) % (uint64_t)shards) == t->options.shard - 1;
}

bool items_choose(struct task *t, struct error *err)
{
    int n = (int)t->records.n;
    bool *keep = mem_new((size_t)n, sizeof *keep, err);
    struct drawing d = { 0 };
    size_t width = (size_t)t->n_shots + 1;
    t->items = mem_new((size_t)n, sizeof *t->items, err);
    bool ok = keep && t->items && mark_limit(t, keep, err) &&
              (!t->n_shots || (build_pools(t, err) && drawing_open(&d, t, err)));
    for (int i = 0; ok && i < n; i++) {
        /* Draws go record by record, so that neither limit nor shard changes anybody's shots. */
        int *shots = arena_new(&t->arena, width * sizeof *shots, err);
        ok = shots && (!t->n_shots || item_shots(t, &d, i, shots, err));
        if (ok && keep[i] && in_shard(t, i))
            t->items[t->n_items++] = (struct item){ i, t->ids[i], shots };
    }
    drawing_close(&d);
    free(keep);
    return ok;
}

/* ---- rendering ---- */

struct render {
    const struct task *t;
    struct arena *a;
    const struct records *set;
    const struct record *record;
    struct scope_name names[5];
    char row[16];
    struct text text;
};

static void render_start(struct render *r, const struct records *set, const struct record *record)
{
    const struct group *g = &r->t->groups[record->group];
    r->set = set;
    r->record = record;
    snprintf(r->row, sizeof r->row, "%d", record->row);
    struct scope_name names[] = { { "group", g->name }, { "row", r->row }, { "preamble", g->preamble }, { "context", NULL }, { NULL, NULL } };
    memcpy(r->names, names, sizeof names);
}

static bool render(struct render *r, const struct template *t, const cJSON *element, const char **out, struct error *err)
{
    char where[1024];
    struct scope scope = { .names = r->names, .element = element, .record = r->record->fields };
    text_clear(&r->text);
    if (!template_render(t, &scope, &r->text, err))
        return fail_in(err, "%s", record_where(r->set, r->record, where, sizeof where));
    return (*out = arena_str(r->a, text_str(&r->text), r->text.len, err));
}

struct choices {
    const char **text;
    bool *right;
    int n;
};

static bool wrong_gold(struct render *r, const char *gold, int n, struct error *err)
{
    static const char *const expected[GOLD_COUNT] = { "a letter from A", "an index from 0", "a number from 1", "the text of a choice",
                                                      "the label of a choice", "true" };
    char where[1024];
    return fail(err, STATUS_INPUT, "%s: the right answer is \"%.60s\", expected %s (there are %d choices)",
                record_where(r->set, r->record, where, sizeof where), gold, expected[r->t->spec.gold_as], n);
}

/* Fills right[] by position (letter, index, number). */
static bool gold_by_position(struct render *r, const char *gold, struct choices *c, struct error *err)
{
    int64_t at;
    const char *s = gold;
    size_t len = strlen(gold);
    strip_space(&s, &len);
    if (r->t->spec.gold_as == GOLD_LETTER) {
        if (len != 1 || *s < 'A' || *s >= 'A' + c->n)
            return wrong_gold(r, gold, c->n, err);
        at = *s - 'A';
    } else {
        int64_t base = r->t->spec.gold_as == GOLD_NUMBER;
        if (!parse_int(gold, base, c->n - 1 + base, &at))
            return wrong_gold(r, gold, c->n, err);
        at -= base;
    }
    c->right[at] = true;
    return true;
}

/* The elements of "of": of a list or an object. */
static bool choice_elements(struct render *r, const cJSON **list, struct error *err)
{
    const char *of = r->t->spec.choices.of;
    char where[1024];
    *list = field_find(r->record->fields, of);
    return ((cJSON_IsArray(*list) || cJSON_IsObject(*list)) && (*list)->child) ||
           fail(err, STATUS_INPUT, "%s: field \"%s\" is %s, expected a list of choices",
                record_where(r->set, r->record, where, sizeof where), of, *list ? "not a list or empty" : "missing");
}

static bool is_one(const char *s)
{
    return strcmp(s, "1") == 0 || strcmp(s, "true") == 0;
}

static bool render_choices(struct render *r, struct choices *c, struct error *err)
{
    const struct choice_spec *spec = &r->t->spec.choices;
    const cJSON *list = NULL;
    const char *gold = "", *mark;
    enum gold_as as = r->t->spec.gold_as;
    if (spec->of && !choice_elements(r, &list, err))
        return false;
    int n = spec->of ? cJSON_GetArraySize(list) : spec->n_fixed;
    *c = (struct choices){ arena_new(r->a, (size_t)n * sizeof *c->text, err), arena_new(r->a, (size_t)n * sizeof *c->right, err), n };
    if (!c->text || !c->right || (as != GOLD_TRUE && !render(r, r->t->spec.gold, NULL, &gold, err)))
        return false;
    const cJSON *e = list ? list->child : NULL;
    int rights = 0;
    for (int i = 0; i < n; i++, e = e ? e->next : NULL) {
        if (!render(r, spec->of ? spec->text : spec->fixed[i], e, &c->text[i], err))
            return false;
        if (as == GOLD_TEXT)
            c->right[i] = strcmp(c->text[i], gold) == 0;
        else if (as == GOLD_LABEL || as == GOLD_TRUE) {
            if (!render(r, as == GOLD_LABEL ? spec->label : spec->is_true, e, &mark, err))
                return false;
            c->right[i] = as == GOLD_LABEL ? strcmp(mark, gold) == 0 : is_one(mark);
        }
        rights += c->right[i];
    }
    if (as == GOLD_LETTER || as == GOLD_INDEX || as == GOLD_NUMBER)
        return gold_by_position(r, gold, c, err);
    return rights || wrong_gold(r, as == GOLD_TRUE ? "none" : gold, n, err);
}

static int first_right(const struct choices *c)
{
    int i = 0;
    while (i < c->n - 1 && !c->right[i])
        i++;
    return i;
}

/* Question and answer of one record as a shot. */
static bool render_shot(struct render *r, const char **query, const char **answer, struct error *err)
{
    const struct task_spec *s = &r->t->spec;
    struct choices c = { 0 };
    const struct template *target = s->shot_target ? s->shot_target : s->target;
    if (s->kind->needs_contexts) {
        if (!render_choices(r, &c, err))
            return false;
        r->names[3].value = c.text[first_right(&c)];
        target = target ? target : s->continuation;
    }
    if (!render(r, s->shot_prompt ? s->shot_prompt : s->prompt, NULL, query, err))
        return false;
    if (target)
        return render(r, target, NULL, answer, err);
    if (!s->kind->needs_choices)
        return render(r, s->gold, NULL, answer, err);
    if (!render_choices(r, &c, err))
        return false;
    *answer = c.text[first_right(&c)];
    return true;
}

static bool render_shots(struct render *r, const struct item *item, struct item_text *out, struct error *err)
{
    const struct task *t = r->t;
    size_t n = (size_t)t->n_shots;
    out->n_shots = t->n_shots;
    out->shot_query = arena_new(r->a, n * sizeof *out->shot_query, err);
    out->shot_answer = arena_new(r->a, n * sizeof *out->shot_answer, err);
    if (!out->shot_query || !out->shot_answer)
        return false;
    for (size_t i = 0; i < n; i++) {
        const struct records *set = shot_set(t);
        render_start(r, set, &set->list[item->shots[i]]);
        if (!render_shot(r, &out->shot_query[i], &out->shot_answer[i], err))
            return false;
    }
    return true;
}

static bool gold_letters(struct render *r, struct item_text *out, struct error *err)
{
    struct text t = { 0 };
    for (int i = 0; i < out->n_choices; i++)
        if (out->right[i] && out->n_choices <= 26)
            text_printf(&t, "%s%c", t.len ? "," : "", 'A' + i);
        else if (out->right[i])
            text_printf(&t, "%s%d", t.len ? "," : "", i + 1);
    bool ok = text_ok(&t, err) && (out->gold = arena_str(r->a, text_str(&t), t.len, err));
    text_free(&t);
    return ok;
}

static bool render_question(struct render *r, struct item_text *out, struct error *err)
{
    const struct task_spec *s = &r->t->spec;
    struct choices c = { 0 };
    if (s->kind->generates) {
        struct text gold = { 0 };
        bool ok = render(r, s->prompt, NULL, &out->query, err) &&
                  render(r, s->gold ? s->gold : s->target, NULL, &out->reference, err) &&
                  extractor_normalise(s->extractor, out->reference, strlen(out->reference), &gold, err) &&
                  (out->gold = arena_str(r->a, text_str(&gold), gold.len, err));
        text_free(&gold);
        return ok;
    }
    if (!render_choices(r, &c, err))
        return false;
    out->n_choices = c.n;
    out->choices = c.text;
    out->right = c.right;
    if (!gold_letters(r, out, err))
        return false;
    if (!s->kind->needs_contexts)
        return render(r, s->prompt, NULL, &out->query, err);
    const char *continuation;
    if (!render(r, s->continuation, NULL, &continuation, err) ||
        !(out->queries = arena_new(r->a, (size_t)c.n * sizeof *out->queries, err)))
        return false;
    for (int i = 0; i < c.n; i++) {
        r->names[3].value = c.text[i];
        if (!render(r, s->prompt, NULL, &out->queries[i], err))
            return false;
        out->choices[i] = continuation;
    }
    return true;
}

bool item_render(const struct task *t, int i, struct arena *a, struct item_text *out, struct error *err)
{
    const struct item *item = &t->items[i];
    const struct record *record = &t->records.list[item->record];
    struct render r = { .t = t, .a = a };
    *out = (struct item_text){ .id = item->id, .group = t->groups[record->group].name, .description = "" };
    bool ok = render_shots(&r, item, out, err);
    render_start(&r, &t->records, record);
    ok = ok && (!t->spec.description || render(&r, t->spec.description, NULL, &out->description, err)) &&
         render_question(&r, out, err);
    text_free(&r.text);
    return ok;
}

void item_prompt(const struct task *t, const struct item_text *x, const char *query, struct text *out, size_t *prefix_bytes)
{
    size_t start = out->len;
    text_puts(out, x->description);
    for (int s = 0; s < x->n_shots; s++) {
        text_puts(out, x->shot_query[s]);
        text_puts(out, t->spec.target_delimiter);
        text_puts(out, x->shot_answer[s]);
        text_puts(out, t->spec.shot_delimiter);
    }
    *prefix_bytes = out->len - start;
    text_puts(out, query);
}
