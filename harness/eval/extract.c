#include "extract.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "template.h"

struct rule {
    char *name;
    pcre2_code *regex;              /* NULL: the whole output */
    bool last;
};
struct extractor {
    struct rule *rules;
    int n_rules;
    pcre2_code **deletions;
    int n_deletions;
    bool ignore_case, ignore_punctuation;
};

/* Python's re: Unicode classes, '.' stops at \n alone. */
static pcre2_code *regex_new(const char *pattern, const char *where, struct error *err)
{
    int code;
    PCRE2_SIZE at;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context) {
        fail(err, STATUS_MEMORY, "out of memory for a regular expression");
        return NULL;
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_code *regex = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &at, context);
    pcre2_compile_context_free(context);
    if (!regex) {
        PCRE2_UCHAR text[160];
        pcre2_get_error_message(code, text, sizeof text);
        fail(err, STATUS_INPUT, "%s: regular expression \"%s\", at character %zu: %s", where, pattern, (size_t)at, (char *)text);
    }
    return regex;
}

static bool match_failed(int rc, struct error *err)
{
    PCRE2_UCHAR text[160];
    pcre2_get_error_message(rc, text, sizeof text);
    return fail(err, STATUS_INPUT, "a regular expression gave up: %s", (char *)text);
}

/* ---- reading the rules ---- */

static bool rule_new(struct rule *r, const cJSON *o, const char *where, struct error *err)
{
    const char *name, *regex, *pick = "first";
    if (!json_str(o, "name", &name, where, err) || !json_str(o, "regex", &regex, where, err) ||
        (json_get(o, "pick") && !json_str(o, "pick", &pick, where, err)))
        return false;
    r->last = strcmp(pick, "last") == 0;
    if (!r->last && strcmp(pick, "first") != 0)
        return fail(err, STATUS_INPUT, "%s: \"pick\" is \"%s\", expected \"first\" or \"last\"", where, pick);
    r->name = str_dup(name, err);
    return r->name && (r->regex = regex_new(regex, where, err));
}

static bool rules_new(struct extractor *e, const cJSON *rules, const char *where, struct error *err)
{
    int n = rules ? cJSON_GetArraySize(rules) : 1;
    if (!(e->rules = mem_new((size_t)n, sizeof *e->rules, err)))
        return false;
    if (!rules) {
        e->n_rules = 1;
        return (e->rules[0].name = str_dup("none", err));
    }
    for (const cJSON *o = rules->child; o; o = o->next)
        if (!rule_new(&e->rules[e->n_rules++], o, where, err))
            return false;
    return true;
}

static bool normalise_new(struct extractor *e, const cJSON *o, const char *where, struct error *err)
{
    const cJSON *list = NULL;
    if (!o)
        return true;
    if ((json_get(o, "ignore_case") && !json_bool(o, "ignore_case", &e->ignore_case, where, err)) ||
        (json_get(o, "ignore_punctuation") && !json_bool(o, "ignore_punctuation", &e->ignore_punctuation, where, err)) ||
        (json_get(o, "delete") && !json_array(o, "delete", &list, where, err)))
        return false;
    if (!list)
        return true;
    if (!(e->deletions = mem_new((size_t)cJSON_GetArraySize(list), sizeof *e->deletions, err)))
        return false;
    for (const cJSON *p = list->child; p; p = p->next) {
        if (!cJSON_IsString(p))
            return fail(err, STATUS_INPUT, "%s: \"delete\" holds something else than texts", where);
        if (!(e->deletions[e->n_deletions] = regex_new(p->valuestring, where, err)))
            return false;
        e->n_deletions++;
    }
    return true;
}

bool extractor_new(struct extractor **out, const cJSON *rules, const cJSON *normalise, const char *where, struct error *err)
{
    *out = NULL;
    struct extractor *e = mem_new(1, sizeof *e, err);
    if (e && rules_new(e, rules, where, err) && normalise_new(e, normalise, where, err)) {
        *out = e;
        return true;
    }
    extractor_free(e);
    return false;
}

void extractor_free(struct extractor *e)
{
    if (!e)
        return;
    for (int i = 0; i < e->n_rules; i++) {
        free(e->rules[i].name);
        pcre2_code_free(e->rules[i].regex);
    }
    for (int i = 0; i < e->n_deletions; i++)
        pcre2_code_free(e->deletions[i]);
    free(e->rules);
    free(e->deletions);
    free(e);
}

int extractor_rules(const struct extractor *e)
{
    return e->n_rules;
}

const char *extractor_rule_name(const struct extractor *e, int rule)
{
    return e->rules[rule].name;
}

/* ---- matching ---- */

/* Next match at or after *at; *at moves past it, and past one character after an empty match (as findall). */
static int next_match(const pcre2_code *regex, const char *s, size_t len, size_t *at, pcre2_match_data *m)
{
    if (*at > len)
        return PCRE2_ERROR_NOMATCH;
    int rc = pcre2_match(regex, (PCRE2_SPTR)s, len, *at, PCRE2_NO_UTF_CHECK, m, NULL);
    if (rc > 0) {
        const PCRE2_SIZE *v = pcre2_get_ovector_pointer(m);
        *at = v[1];
        if (v[0] == v[1])
            do
                (*at)++;
            while (*at < len && ((unsigned char)s[*at] & 0xC0) == 0x80);
    }
    return rc;
}

/* The first group that is not empty; the whole match when the pattern has none.  A lone group may be empty. */
static bool match_value(pcre2_match_data *m, int rc, uint32_t groups, const char *s, const char **value, size_t *len)
{
    const PCRE2_SIZE *v = pcre2_get_ovector_pointer(m);
    uint32_t first = groups ? 1 : 0;
    for (uint32_t g = first; g <= groups && g < (uint32_t)rc; g++)
        if (v[2 * g] != PCRE2_UNSET && v[2 * g + 1] > v[2 * g]) {
            *value = s + v[2 * g];
            *len = v[2 * g + 1] - v[2 * g];
            return true;
        }
    *value = s;
    *len = 0;
    return groups <= 1;
}

static bool rule_find(const struct rule *r, const char *s, size_t len, const char **value, size_t *value_len, bool *found,
                      struct error *err)
{
    uint32_t groups = 0;
    pcre2_pattern_info(r->regex, PCRE2_INFO_CAPTURECOUNT, &groups);
    pcre2_match_data *m = pcre2_match_data_create_from_pattern(r->regex, NULL);
    if (!m)
        return fail(err, STATUS_MEMORY, "out of memory for a match");
    *found = false;
    size_t at = 0;
    int rc;
    while ((rc = next_match(r->regex, s, len, &at, m)) > 0) {
        *found = match_value(m, rc, groups, s, value, value_len);
        if (!r->last)
            break;
    }
    pcre2_match_data_free(m);
    return rc > 0 || rc == PCRE2_ERROR_NOMATCH || match_failed(rc, err);
}

static bool delete_matches(const pcre2_code *regex, struct text *t, struct error *err)
{
    pcre2_match_data *m = pcre2_match_data_create_from_pattern(regex, NULL);
    if (!m)
        return fail(err, STATUS_MEMORY, "out of memory for a match");
    struct text kept = { 0 };
    size_t at = 0, from = 0;
    int rc;
    while ((rc = next_match(regex, text_str(t), t->len, &at, m)) > 0) {
        const PCRE2_SIZE *v = pcre2_get_ovector_pointer(m);
        text_add(&kept, t->data ? t->data + from : "", v[0] - from);
        from = v[1];
    }
    text_add(&kept, text_str(t) + from, t->len - from);
    pcre2_match_data_free(m);
    text_free(t);
    *t = kept;
    return rc == PCRE2_ERROR_NOMATCH || match_failed(rc, err);
}

static void drop_punctuation(struct text *t)
{
    size_t n = 0;
    for (size_t i = 0; i < t->len; i++)
        if ((unsigned char)t->data[i] >= 0x80 || !ispunct((unsigned char)t->data[i]))
            t->data[n++] = t->data[i];
    t->len = n;
    if (t->data)
        t->data[n] = '\0';
}

void text_add_valid(struct text *out, const char *s, size_t len)
{
    while (len) {
        size_t good = utf8_check(s, len);
        text_add(out, s, good);
        if (good < len) {
            text_puts(out, "\xEF\xBF\xBD");
            good++;
        }
        s += good;
        len -= good;
    }
}

bool extractor_normalise(const struct extractor *e, const char *s, size_t len, struct text *out, struct error *err)
{
    struct text t = { 0 };
    text_add_valid(&t, s, len);
    bool ok = true;
    for (int i = 0; ok && i < e->n_deletions; i++)
        ok = delete_matches(e->deletions[i], &t, err);
    if (e->ignore_case)
        text_lower(&t);
    if (e->ignore_punctuation)
        drop_punctuation(&t);
    text_add(out, text_str(&t), t.len);
    ok = ok && text_ok(&t, err) && text_ok(out, err);
    text_free(&t);
    return ok;
}

bool extractor_apply(const struct extractor *e, int rule, const char *output, size_t len, struct text *out, bool *found,
                     struct error *err)
{
    const struct rule *r = &e->rules[rule];
    struct text valid = { 0 };
    text_add_valid(&valid, output, len);
    const char *value = text_str(&valid);
    size_t value_len = valid.len;
    *found = true;
    bool ok = text_ok(&valid, err) &&
              (!r->regex || rule_find(r, text_str(&valid), valid.len, &value, &value_len, found, err));
    if (ok && *found) {
        if (r->regex)
            strip_space(&value, &value_len);
        ok = extractor_normalise(e, value, value_len, out, err);
    }
    text_free(&valid);
    return ok;
}
