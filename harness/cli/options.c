/* Parsing and help, from the rows of tables.c. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_word(const char *names, const char *word, bool *required)
{
    size_t n = strlen(word);
    for (const char *p = names; *p;) {
        p += strspn(p, " ");
        size_t len = strcspn(p, " ");
        bool must = len && p[len - 1] == '!';
        if (len - must == n && strncmp(p, word, n) == 0) {
            if (required)
                *required = must;
            return true;
        }
        p += len;
    }
    return false;
}

static bool list_add(struct word_list *l, const char *word, struct error *err)
{
    if (!mem_grow(&l->words, &l->cap, l->n + 1, sizeof *l->words, err))
        return false;
    l->words[l->n++] = word;
    return true;
}

/* --task in compare and report names one task to keep; --ids FILE in logits, --text FILE in kld are files, its --limit
 * counts windows.  These spellings are part of the contract: a command sees and shows them in place of the rows' own. */
static const struct alias {
    const char *command, *given, *name;
} aliases[] = {
    { "compare", "task", "only-task" }, { "report", "task", "only-task" }, { "logits", "ids", "ids-file" },
    { "kld", "text", "text-file" }, { "kld", "limit", "windows" }, { NULL, "tasks", "task" }, { NULL, "models", "model" },
};

/* The spelling that this command has for an option. */
static const char *shown_name(const struct command *c, const struct option *o)
{
    for (size_t i = 0; i < ARRAY_LEN(aliases); i++)
        if (aliases[i].command && strcmp(aliases[i].command, c->name) == 0 && strcmp(aliases[i].name, o->name) == 0)
            return aliases[i].given;
    return o->name;
}

static const struct option *option_find(const struct command *c, const char *name, size_t len, char letter)
{
    char full[64];
    snprintf(full, sizeof full, "%.*s", (int)len, name);
    for (size_t i = 0; i < ARRAY_LEN(aliases); i++)
        if (!letter && strcmp(full, aliases[i].given) == 0 && (!aliases[i].command || strcmp(aliases[i].command, c->name) == 0))
            snprintf(full, sizeof full, "%s", aliases[i].name);
    for (const struct option *o = options; o->name; o++)
        if ((letter ? o->letter == letter : strcmp(o->name, full) == 0) && is_word(c->option_names, o->name, NULL))
            return o;
    return NULL;
}

static bool unknown_option(const struct command *c, const char *given, struct error *err)
{
    const char *names[128];
    size_t n = 0;
    for (const struct option *o = options; o->name; o++)
        if (is_word(c->option_names, o->name, NULL) && n < ARRAY_LEN(names))
            names[n++] = shown_name(c, o);
    char bare[64];
    snprintf(bare, sizeof bare, "%.*s", (int)strcspn(given, "="), given + strspn(given, "-"));
    const char *near = nearest_word(bare, names, n);
    return near ? fail(err, STATUS_USAGE, "%s: unknown option %s; did you mean --%s?", c->name, given, near)
                : fail(err, STATUS_USAGE, "%s: unknown option %s; `qdelta help %s` lists what it takes", c->name, given, c->name);
}

static bool one_of(const char *choices, const char *value, const char **near)
{
    static char copy[128];
    const char *words[16];
    size_t n = 0;
    snprintf(copy, sizeof copy, "%s", choices);
    for (char *p = strtok(copy, "|"); p && n < ARRAY_LEN(words); p = strtok(NULL, "|"))
        words[n++] = p;
    for (size_t i = 0; i < n; i++)
        if (strcmp(words[i], value) == 0)
            return true;
    *near = nearest_word(value, words, n);
    return false;
}

static bool option_set(const struct command *c, const struct option *o, const char *value, struct settings *s, struct error *err)
{
    void *field = (char *)s + o->field;
    const char *near = NULL;
    if (o->choices && !one_of(o->choices, value, &near))
        return fail(err, STATUS_USAGE, "%s: --%s %s: expected %s%s%s%s", c->name, shown_name(c, o), value, o->choices,
                    near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    switch (o->kind) {
    case OPT_FLAG:
        *(bool *)field = true;
        return true;
    case OPT_STRING:
        *(const char **)field = value;
        return true;
    case OPT_LIST:
        return list_add(field, value, err);
    case OPT_INT:
        return parse_int(value, o->lo, o->hi, field) ||
               fail(err, STATUS_USAGE, "%s: --%s %s: expected a whole number from %lld to %lld", c->name, shown_name(c, o), value,
                    (long long)o->lo, (long long)o->hi);
    case OPT_DOUBLE:
        return parse_double(value, (double)o->lo, (double)o->hi, field) ||
               fail(err, STATUS_USAGE, "%s: --%s %s: expected a number from %lld to %lld", c->name, shown_name(c, o), value,
                    (long long)o->lo, (long long)o->hi);
    }
    return false;
}

static bool set_defaults(const struct command *c, struct settings *s, struct error *err)
{
    for (const struct option *o = options; o->name; o++)
        if (o->def && !option_set(c, o, o->def, s, err))
            return false;
    return true;
}

static bool check_required(const struct command *c, const struct settings *s, struct error *err)
{
    for (const struct option *o = options; o->name; o++) {
        bool required = false;
        if (!is_word(c->option_names, o->name, &required) || !required)
            continue;
        const void *field = (const char *)s + o->field;
        bool there = o->kind == OPT_LIST ? ((const struct word_list *)field)->n > 0 : *(const char *const *)field != NULL;
        if (!there)
            return fail(err, STATUS_USAGE, "%s: --%s %s is missing: %s", c->name, shown_name(c, o), o->arg, o->help);
    }
    int n = (int)s->rest.n;
    if (n < c->least_rest || (c->most_rest >= 0 && n > c->most_rest)) {
        if (n > c->most_rest && c->most_rest >= 0)
            return fail(err, STATUS_USAGE, "%s: \"%s\" is one argument too many; usage: qdelta %s %s", c->name,
                        s->rest.words[c->most_rest], c->name, c->args);
        return fail(err, STATUS_USAGE, "%s: an argument is missing; usage: qdelta %s %s", c->name, c->name, c->args);
    }
    return true;
}

/* One "--name[=value]" or "-x[value]" at argv[*i]; moves *i over the values it took. */
static bool take_option(const struct command *c, int argc, char **argv, int *i, struct settings *s, struct error *err)
{
    const char *given = argv[*i], *value = NULL;
    bool is_long = given[1] == '-';
    size_t len = is_long ? strcspn(given + 2, "=") : 1;
    const struct option *o = option_find(c, is_long ? given + 2 : "", len, is_long ? 0 : given[1]);
    if (!o)
        return unknown_option(c, given, err);
    if (is_long && given[2 + len] == '=')
        value = given + 3 + len;
    else if (!is_long && given[2])
        value = given + 2;
    if (o->kind == OPT_FLAG)
        return value ? fail(err, STATUS_USAGE, "%s: --%s takes no value", c->name, shown_name(c, o)) : option_set(c, o, NULL, s, err);
    if (!value && *i + 1 < argc)
        value = argv[++*i];
    if (!value)
        return fail(err, STATUS_USAGE, "%s: --%s needs %s: %s", c->name, shown_name(c, o), o->arg, o->help);
    if (!option_set(c, o, value, s, err))
        return false;
    while (o->kind == OPT_LIST && *i + 1 < argc && argv[*i + 1][0] != '-')
        if (!option_set(c, o, argv[++*i], s, err))
            return false;
    return true;
}

bool options_parse(const struct command *c, int argc, char **argv, struct settings *s, struct error *err)
{
    *s = (struct settings){ 0 };
    bool ok = set_defaults(c, s, err), only_rest = false;
    for (int i = 0; ok && i < argc; i++) {
        if (!only_rest && strcmp(argv[i], "--") == 0)
            only_rest = true;
        else if (!only_rest && argv[i][0] == '-' && argv[i][1])
            ok = take_option(c, argc, argv, &i, s, err);
        else
            ok = list_add(&s->rest, argv[i], err);
    }
    return ok && (s->help || check_required(c, s, err));
}

void settings_free(struct settings *s)
{
    free(s->models.words);
    free(s->tasks.words);
    free(s->rest.words);
    free(s->set.words);
    free(s->only.words);
    *s = (struct settings){ 0 };
}

const struct command *command_find(const char *name, struct error *err)
{
    const char *names[64];
    size_t n = 0;
    for (const struct command *c = commands; c->name; c++) {
        if (strcmp(c->name, name) == 0)
            return c;
        names[n++] = c->name;
    }
    const char *near = nearest_word(name, names, n);
    if (near)
        fail(err, STATUS_USAGE, "unknown command \"%s\"; did you mean %s?", name, near);
    else
        fail(err, STATUS_USAGE, "unknown command \"%s\"; `qdelta help` lists the commands", name);
    return NULL;
}

void print_help(FILE *out)
{
    fprintf(out, "usage: qdelta <command> [options]\n\n"
                 "Tells, with numbers that can be trusted, whether a QAT checkpoint beats the PTQ quants of the same model.\n\n");
    for (const struct command *c = commands; c->name; c++)
        fprintf(out, "  %-9s  %-45s %s\n", c->name, c->args, c->summary);
    fprintf(out, "\n`qdelta help COMMAND` tells all of a command; --version names version and commit.\n"
                 "Data go to stdout, progress and errors to stderr.\n"
                 "exit: 0 done or passed, 1 failed, 2 wrong usage, 3 regression, 4 cannot tell\n");
}

void print_command_help(FILE *out, const struct command *c)
{
    fprintf(out, "usage: qdelta %s %s [options]\n\n%s.\n", c->name, c->args, c->summary);
    if (c->note)
        fprintf(out, "%s\n", c->note);
    fprintf(out, "\n");
    for (const struct option *o = options; o->name; o++) {
        bool required = false;
        if (!is_word(c->option_names, o->name, &required))
            continue;
        char left[80], letter[8] = "    ";
        if (o->letter)
            snprintf(letter, sizeof letter, "-%c, ", o->letter);
        snprintf(left, sizeof left, "%s--%s %s", letter, shown_name(c, o), o->arg ? o->arg : "");
        fprintf(out, "  %-30s %s", left, o->help);
        if (required)
            fprintf(out, " (required)");
        else if (o->def && strcmp(o->def, "-1") != 0 && strcmp(o->def, "0") != 0)
            fprintf(out, " [%s]", o->def);
        fprintf(out, "\n");
    }
}
