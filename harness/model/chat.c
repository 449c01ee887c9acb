/* chat.c - chat prompts as literal strings by family.
 *
 * No Jinja: a family is a row of marks (how to know its template), strings and two or three switches.  Every row
 * was held against its model's own template: tests/golden/chat.jsonl. */
#include "tokenizer_private.h"

#include <stdlib.h>
#include <string.h>

enum system_rule {
    SYSTEM_TURN,                /* a turn of its own when there is a system text */
    SYSTEM_ALWAYS,              /* always; default_system stands in */
    SYSTEM_IN_USER,             /* before the first user text */
    SYSTEM_FORBIDDEN,
    SYSTEM_DATED,               /* Llama 3: always, after a line of dates */
    SYSTEM_OR_THINKING,         /* Gemma 4: when there is a system text or thinking is on */
    SYSTEM_SECTIONS,            /* SmolLM3: always; dates, mode and instructions in sections */
};
enum history_rule { HISTORY_AS_IS, HISTORY_NO_CHANNEL, HISTORY_NO_THINK, HISTORY_EMPTY_THINK };

/* To add a family: its name in the enum, this row, its lines in tests/golden/chat.jsonl. */
struct family {
    const char *name;
    const char *marks[4];       /* all of them stand in the template text ... */
    const char *foreign[4];     /* ... and none of these */
    const char *bos;            /* "" when the template prints none */
    const char *open, *after_role, *close;      /* open ROLE after_role CONTENT close */
    const char *assistant;      /* its name for that role */
    const char *markers[4];     /* must be tokens of the vocabulary */
    const char *default_system;
    const char *no_thinking;    /* after the generation prompt when thinking is off */
    const char *answer_start;   /* after the generation prompt in any case */
    const char *think_mark;     /* SYSTEM_OR_THINKING: at the start of the system turn when thinking is on */
    enum system_rule system;
    enum history_rule history;
    bool trim;
};

#define CHATML .open = "<|im_start|>", .after_role = "\n", .close = "<|im_end|>\n", .assistant = "assistant", .bos = "", \
               .markers = { "<|im_start|>", "<|im_end|>" }
#define GEMMA3 .bos = "<bos>", .open = "<start_of_turn>", .after_role = "\n", .close = "<end_of_turn>\n", \
               .assistant = "model", .markers = { "<start_of_turn>", "<end_of_turn>" }, .trim = true
#define GEMMA4 .bos = "<bos>", .open = "<|turn>", .after_role = "\n", .close = "<turn|>\n", .assistant = "model", \
               .system = SYSTEM_OR_THINKING, .history = HISTORY_NO_CHANNEL, .trim = true
/* What the larger Gemma 4 models are primed with when thinking is off; E2B and E4B must not see it. */
#define EMPTY_THOUGHT "<|channel>thought\n<channel|>"
#define EMPTY_THOUGHT_SOURCE "<|channel>thought\\n<channel|>"
/* The templates of the first weeks had no newline after the mark that turns thinking on. */
#define FIRST_THINK_SOURCE "'<|think|>'"

#define SMOLLM3 CHATML, .system = SYSTEM_SECTIONS, .history = HISTORY_EMPTY_THINK, .no_thinking = "<think>\n\n</think>\n"
#define LLAMA3_MARKERS .open = "<|start_header_id|>", .after_role = "<|end_header_id|>\n\n", .close = "<|eot_id|>", \
                       .assistant = "assistant", .bos = "<|begin_of_text|>", .trim = true, \
                       .markers = { "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>" }

static const struct family families[CHAT_COUNT] = {
    [CHAT_NONE] = { .name = "none" },
    [CHAT_GEMMA2] = { .name = "gemma2", .marks = { "<start_of_turn>", "System role not supported" }, GEMMA3,
                      .system = SYSTEM_FORBIDDEN },
    [CHAT_GEMMA3] = { .name = "gemma3", .marks = { "<start_of_turn>" }, .foreign = { "System role not supported" },
                      GEMMA3, .system = SYSTEM_IN_USER },
    [CHAT_GEMMA4_LARGE] = { .name = "gemma4-large", .marks = { "<|turn>", "<turn|>", EMPTY_THOUGHT_SOURCE },
                            .foreign = { FIRST_THINK_SOURCE }, GEMMA4, .no_thinking = EMPTY_THOUGHT, .think_mark = "<|think|>\n",
                            .markers = { "<|turn>", "<turn|>", "<|channel>", "<channel|>" } },
    [CHAT_GEMMA4_SMALL] = { .name = "gemma4-small", .marks = { "<|turn>", "<turn|>" },
                            .foreign = { EMPTY_THOUGHT_SOURCE, FIRST_THINK_SOURCE }, GEMMA4, .think_mark = "<|think|>\n",
                            .markers = { "<|turn>", "<turn|>" } },
    [CHAT_GEMMA4_LARGE_FIRST] = { .name = "gemma4-large-first",
                                  .marks = { "<|turn>", "<turn|>", EMPTY_THOUGHT_SOURCE, FIRST_THINK_SOURCE }, GEMMA4,
                                  .no_thinking = EMPTY_THOUGHT, .think_mark = "<|think|>",
                                  .markers = { "<|turn>", "<turn|>", "<|channel>", "<channel|>" } },
    [CHAT_GEMMA4_SMALL_FIRST] = { .name = "gemma4-small-first", .marks = { "<|turn>", "<turn|>", FIRST_THINK_SOURCE },
                                  .foreign = { EMPTY_THOUGHT_SOURCE }, GEMMA4, .think_mark = "<|think|>",
                                  .markers = { "<|turn>", "<turn|>" } },
    [CHAT_LLAMA3] = { .name = "llama3",
                      .marks = { "<|start_header_id|>", "<|eot_id|>", "Cutting Knowledge Date: December 2023" },
                      .foreign = { "<|recipient|>", "functools", "<function=" }, LLAMA3_MARKERS,
                      /* The template prints today's date; a fixed one keeps prompts equal from day to day. */
                      .default_system = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n",
                      .system = SYSTEM_DATED },
    [CHAT_LLAMA3_0] = { .name = "llama3.0",
                        .marks = { "'<|start_header_id|>' + message['role'] + '<|end_header_id|>",
                                   "'+ message['content'] | trim + '<|eot_id|>'", "bos_token + content" },
                        .foreign = { "Cutting Knowledge Date", "tools" }, LLAMA3_MARKERS, .system = SYSTEM_TURN },
    [CHAT_QWEN25] = { .name = "qwen2.5",
                      .marks = { "<|im_start|>", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant." },
                      CHATML, .system = SYSTEM_ALWAYS,
                      .default_system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant." },
    [CHAT_QWEN3] = { .name = "qwen3",
                     .marks = { "<|im_start|>", "last_query_index", "enable_thinking is false",
                                "'<think>\\n\\n</think>\\n\\n'" },
                     .foreign = { "'<think>\\n'", "Reasoning Mode" }, CHATML, .system = SYSTEM_TURN,
                     .history = HISTORY_NO_THINK, .no_thinking = "<think>\n\n</think>\n\n" },
    [CHAT_QWEN2] = { .name = "qwen2", .marks = { "<|im_start|>system", "You are a helpful assistant.<|im_end|>", "'<|im_start|>' + message['role']",
                                                 "message['content'] + '<|im_end|>'" },
                     .foreign = { "tools", "think>", "trim", "SmolLM" }, CHATML, .system = SYSTEM_ALWAYS,
                     .default_system = "You are a helpful assistant." },
    [CHAT_CHATML] = { .name = "chatml", .marks = { "'<|im_start|>' + message['role']", "message['content'] + '<|im_end|>'", "<|im_start|>assistant" },
                      .foreign = { "system", "tools", "think>", "trim" }, CHATML, .system = SYSTEM_TURN },
    /* The "2507" releases: one template answers at once, the other always thinks. */
    [CHAT_QWEN3_INSTRUCT] = { .name = "qwen3-instruct",
                              .marks = { "'<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n'",
                                         "'<|im_start|>' + message.role + '\\n' + content }}", "'<|im_start|>assistant\\n' }}",
                                         "message.tool_calls" },
                              .foreign = { "think>", "You are Qwen", "enable_thinking", "<|vision_start|>" }, CHATML,
                              .system = SYSTEM_TURN },
    [CHAT_QWEN3_THINKING] = { .name = "qwen3-thinking",
                              .marks = { "'<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n'", "last_query_index",
                                         "content.split('</think>')[-1].lstrip('\\n')", "'<|im_start|>assistant\\n<think>\\n' }}" },
                              .foreign = { "enable_thinking", "You are Qwen", "<|vision_start|>" }, CHATML, .system = SYSTEM_TURN,
                              .history = HISTORY_NO_THINK, .answer_start = "<think>\n" },
    /* Today's date, where the template prints one, is that of the release. */
    [CHAT_SMOLLM3] = { .name = "smollm3", .marks = { "<|im_start|>", "Reasoning Mode: ", "named SmolLM", "Today Date: " }, SMOLLM3,
                       .default_system = "## Metadata\n\nKnowledge Cutoff Date: June 2025\nToday Date: 08 July 2025\n" },
    [CHAT_SMOLLM3_UNDATED] = { .name = "smollm3-undated", .marks = { "<|im_start|>", "Reasoning Mode: ", "named SmolLM" },
                               .foreign = { "Today Date: ", "/system_override" }, SMOLLM3,
                               .default_system = "## Metadata\n\nKnowledge Cutoff Date: June 2025\n" },
    [CHAT_SMOLLM2] = { .name = "smollm2",
                       .marks = { "<|im_start|>", "You are a helpful AI assistant named SmolLM, trained by Hugging Face" },
                       .foreign = { "Reasoning Mode" }, CHATML, .system = SYSTEM_ALWAYS,
                       .default_system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face" },
};
const char *const chat_family_names[CHAT_COUNT] = {
    [CHAT_NONE] = "none",       [CHAT_GEMMA2] = "gemma2",           [CHAT_GEMMA3] = "gemma3",
    [CHAT_GEMMA4_SMALL] = "gemma4-small", [CHAT_GEMMA4_LARGE] = "gemma4-large", [CHAT_LLAMA3] = "llama3",
    [CHAT_QWEN25] = "qwen2.5",  [CHAT_QWEN3] = "qwen3",             [CHAT_SMOLLM2] = "smollm2",
    [CHAT_LLAMA3_0] = "llama3.0", [CHAT_QWEN3_INSTRUCT] = "qwen3-instruct", [CHAT_QWEN3_THINKING] = "qwen3-thinking",
    [CHAT_QWEN2] = "qwen2",     [CHAT_CHATML] = "chatml",           [CHAT_SMOLLM3] = "smollm3", [CHAT_SMOLLM3_UNDATED] = "smollm3-undated",
    [CHAT_GEMMA4_SMALL_FIRST] = "gemma4-small-first", [CHAT_GEMMA4_LARGE_FIRST] = "gemma4-large-first",
};

static bool is_family(const struct family *f, const char *text)
{
    for (size_t i = 0; i < ARRAY_LEN(f->marks) && f->marks[i]; i++)
        if (!strstr(text, f->marks[i]))
            return false;
    for (size_t i = 0; i < ARRAY_LEN(f->foreign) && f->foreign[i]; i++)
        if (strstr(text, f->foreign[i]))
            return false;
    return f->marks[0] != NULL;
}

enum chat_family chat_detect(const char *template_text)
{
    for (int f = CHAT_NONE + 1; template_text && f < CHAT_COUNT; f++)
        if (is_family(&families[f], template_text))
            return (enum chat_family)f;
    return CHAT_NONE;
}

/* ---- text ---- */

/* Python's str.strip(), which Jinja's trim is. */
static bool is_blank(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

static size_t trimmed_end(const char *s, size_t len)
{
    uint32_t code;
    for (size_t n = 1; n <= 3 && n <= len; n++)
        if (utf8_decode(s + len - n, n, &code) == (int)n && is_blank(code)) {
            len -= n;
            n = 0;
        }
    return len;
}

static void trim(const char **s, size_t *len)
{
    uint32_t code;
    for (int n; (n = utf8_decode(*s, *len, &code)) > 0 && is_blank(code); *s += n, *len -= (size_t)n)
        ;
    *len = trimmed_end(*s, *len);
}

struct prompt {
    const struct family *f;
    struct text *text;
    struct span *spans;         /* alternating template and content */
    size_t n_spans, cap_spans;
    bool want_spans, failed, thinking;
};

static void add(struct prompt *p, const char *s, size_t len, bool is_template)
{
    text_add(p->text, s, len);
    if (!p->want_spans || !len || p->failed)
        return;
    if (p->n_spans && p->spans[p->n_spans - 1].parse_special == is_template) {
        p->spans[p->n_spans - 1].end = p->text->len;
        return;
    }
    if (!mem_grow(&p->spans, &p->cap_spans, p->n_spans + 1, sizeof *p->spans, NULL))
        p->failed = true;
    else
        p->spans[p->n_spans++] = (struct span){ p->text->len, is_template };
}

static void put(struct prompt *p, const char *s)
{
    add(p, s, strlen(s), true);
}

static void content(struct prompt *p, const char *s, size_t len, bool trimmed)
{
    if (trimmed)
        trim(&s, &len);
    add(p, s, len, false);
}

static void open_turn(struct prompt *p, const char *role)
{
    put(p, p->f->open);
    put(p, role);
    put(p, p->f->after_role);
}

/* ---- the assistant's earlier answers ---- */

static const char *find_in(const char *s, size_t len, const char *what)
{
    size_t n = strlen(what);
    for (; len >= n; s++, len--)
        if (memcmp(s, what, n) == 0)
            return s;
    return NULL;
}

/* Gemma 4: of each part before "<channel|>" keep what stands before "<|channel>". */
static void without_channel(const char *s, struct text *out)
{
    static const char open[] = "<|channel>", close[] = "<channel|>";
    for (const char *end; *s; s = *end ? end + strlen(close) : end) {
        end = strstr(s, close);
        end = end ? end : s + strlen(s);
        const char *thought = find_in(s, (size_t)(end - s), open);
        text_add(out, s, (size_t)((thought ? thought : end) - s));
    }
}

/* Qwen3: what follows the last "</think>", without the newlines after it. */
static void without_think(const char *s, struct text *out)
{
    static const char close[] = "</think>";
    const char *rest = s;
    for (const char *p = s; (p = strstr(p, close)); rest = p)
        p += strlen(close);
    while (rest > s && *rest == '\n')
        rest++;
    text_puts(out, rest);
}

static void answer(struct prompt *p, const char *s)
{
    struct text kept = { 0 };
    if (p->f->history == HISTORY_NO_CHANNEL)
        without_channel(s, &kept);
    else if (p->f->history == HISTORY_NO_THINK)
        without_think(s, &kept);
    else
        text_puts(&kept, p->f->history == HISTORY_EMPTY_THINK ? s + strspn(s, "\n") : s);
    if (p->f->history == HISTORY_EMPTY_THINK && !p->thinking)
        put(p, p->f->no_thinking);
    p->failed |= kept.failed;
    content(p, text_str(&kept), kept.len, p->f->trim);
    text_free(&kept);
}

/* ---- the whole prompt ---- */

static void system_text(struct prompt *p, const char *s)
{
    content(p, s, strlen(s), p->f->trim);
}

/* ---- SmolLM3's system turn ---- */

static const char sections_plain[] = "You are a helpful AI assistant named SmolLM, trained by Hugging Face.\n\n";
static const char sections_thinking[] =
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face. Your role as an assistant involves thoroughly exploring "
    "questions through a systematic thinking process before providing the final precise and accurate solutions. This requires engaging "
    "in a comprehensive cycle of analysis, summarizing, exploration, reassessment, reflection, backtracking, and iteration to develop "
    "well-considered thinking process. Please structure your response into two main sections: Thought and Solution using the specified "
    "format: <think> Thought section </think> Solution section. In the Thought section, detail your reasoning process in steps. Each "
    "step should include detailed considerations such as analysing questions, summarizing relevant findings, brainstorming new ideas, "
    "verifying the accuracy of the current steps, refining any errors, and revisiting previous steps. In the Solution section, based on "
    "various attempts, explorations, and reflections from the Thought section, systematically present the final solution that you deem "
    "correct. The Solution section should be logical, accurate, and concise and detail necessary steps needed to reach the "
    "conclusion.\n\n";

static void drop(struct text *t, const char *what)
{
    struct text kept = { 0 };
    const char *s = text_str(t);
    for (const char *at; (at = strstr(s, what)); s = at + strlen(what))
        text_add(&kept, s, (size_t)(at - s));
    text_puts(&kept, s);
    kept.failed |= t->failed;
    text_free(t);
    *t = kept;
}

/* A flag in the system text turns thinking on or off, whatever was asked for; the flags themselves are left out. */
static void sections(struct prompt *p, const char *system)
{
    static const char *const flags[] = { "/no_think", "/think", "/system_override" };
    bool alone = system && strstr(system, flags[2]) && p->f == &families[CHAT_SMOLLM3];
    struct text own = { 0 };
    text_puts(&own, system ? system : "");
    for (int i = 0; i < (alone ? 3 : 2); i++)
        drop(&own, flags[i]);
    if (!alone) {
        put(p, p->f->default_system);
        put(p, p->thinking ? "Reasoning Mode: /think\n\n## Custom Instructions\n\n" : "Reasoning Mode: /no_think\n\n## Custom Instructions\n\n");
    }
    size_t len = trimmed_end(text_str(&own), own.len);
    content(p, text_str(&own), len, false);
    if (!alone)
        put(p, len ? "\n\n" : p->thinking ? sections_thinking : sections_plain);
    p->failed |= own.failed;
    text_free(&own);
}

static bool thinks(const struct family *f, const char *system, bool thinking)
{
    if (f->system != SYSTEM_SECTIONS || !system)
        return thinking;
    return !strstr(system, "/no_think") && (strstr(system, "/think") || thinking);
}

static void system_part(struct prompt *p, const char *system)
{
    const struct family *f = p->f;
    bool think_mark = f->think_mark && p->thinking;
    if (f->system == SYSTEM_IN_USER || (!system && !f->default_system && !think_mark))
        return;
    open_turn(p, "system");
    if (f->system == SYSTEM_SECTIONS) {
        sections(p, system);
        put(p, f->close);
        return;
    }
    if (think_mark)
        put(p, f->think_mark);
    if (f->default_system && (!system || f->system == SYSTEM_DATED))
        put(p, f->default_system);
    if (system)
        system_text(p, system);
    put(p, f->close);
}

static void turn(struct prompt *p, const struct chat_turn *t, const char *before)
{
    bool user = strcmp(t->role, "user") == 0;
    open_turn(p, user ? "user" : p->f->assistant);
    if (before) {
        content(p, before, strlen(before), false);
        put(p, "\n\n");
    }
    if (user)
        content(p, t->content, strlen(t->content), p->f->trim);
    else
        answer(p, t->content);
    put(p, p->f->close);
}

/* [system,] user, assistant, user, ..., user: anything else some template refuses or renders in its own way. */
static bool check_turns(const struct family *f, const struct chat_turn *turns, int n, const char **system,
                        struct error *err)
{
    *system = NULL;
    for (int i = 0; i < n; i++)
        if (!turns[i].role || !turns[i].content)
            return fail(err, STATUS_INPUT, "chat turn %d has no role or no content", i + 1);
    if (n && strcmp(turns[0].role, "system") == 0)
        *system = turns[0].content;
    if (*system && f->system == SYSTEM_FORBIDDEN)
        return fail(err, STATUS_INPUT, "the %s chat template allows no system text", f->name);
    int first = *system != NULL;
    for (int i = first; i < n; i++) {
        const char *want = (i - first) % 2 ? "assistant" : "user";
        if (strcmp(turns[i].role, want) != 0)
            return fail(err, STATUS_INPUT, "chat turn %d is by \"%s\", expected \"%s\"", i + 1, turns[i].role, want);
    }
    return (n - first) % 2 == 1 || fail(err, STATUS_INPUT, "%d chat turns, expected the last to be the user's", n);
}

static bool render(struct prompt *p, const struct chat_turn *turns, int n, bool thinking, struct error *err)
{
    const struct family *f = p->f;
    const char *system;
    if (!check_turns(f, turns, n, &system, err))
        return false;
    p->thinking = thinks(f, system, thinking);
    system_part(p, system);
    int first = system != NULL;
    for (int i = first; i < n; i++)
        turn(p, &turns[i], i == first && f->system == SYSTEM_IN_USER ? system : NULL);
    open_turn(p, f->assistant);
    if (!p->thinking && f->no_thinking)
        put(p, f->no_thinking);
    if (f->answer_start)
        put(p, f->answer_start);
    if (p->failed)
        p->text->failed = true;
    return text_ok(p->text, err);
}

static const struct family *family_of(enum chat_family family, struct error *err)
{
    if ((int)family > CHAT_NONE && family < CHAT_COUNT)
        return &families[family];
    fail(err, STATUS_UNSUPPORTED, "no chat template that qdelta renders");
    return NULL;
}

bool chat_render(enum chat_family family, const struct chat_turn *turns, int n, bool thinking, struct text *out,
                 struct error *err)
{
    struct prompt p = { .f = family_of(family, err), .text = out };
    if (!p.f)
        return false;
    text_puts(out, p.f->bos);
    return render(&p, turns, n, thinking, err);
}

static bool check_markers(const struct tokenizer *t, const struct family *f, struct error *err)
{
    for (size_t i = 0; i < ARRAY_LEN(f->markers) && f->markers[i]; i++) {
        enum token_type type = TOKEN_NORMAL;
        int id = tokenizer_find(t, f->markers[i]);
        if (id < 0 || !tokenizer_token(t, id, NULL, &type) || (type != TOKEN_CONTROL && type != TOKEN_USER_DEFINED))
            return fail(err, STATUS_INPUT, "the vocabulary has no special token %s, which the %s chat template needs",
                        f->markers[i], f->name);
    }
    return true;
}

/* The template prints BOS itself, so it is put here by hand and encode adds none. */
static bool add_bos(const struct tokenizer *t, const struct family *f, struct ids *out, struct error *err)
{
    if (!f->bos[0])
        return true;
    int id = tokenizer_find(t, f->bos);
    if (id < 0)
        return fail(err, STATUS_INPUT, "the vocabulary has no token %s, which the %s chat template needs", f->bos,
                    f->name);
    return ids_add(out, id, err);
}

bool chat_encode(const struct tokenizer *t, enum chat_family family, const struct chat_turn *turns, int n,
                 bool thinking, struct ids *out, struct error *err)
{
    struct text text = { 0 };
    struct prompt p = { .f = family_of(family, err), .text = &text, .want_spans = true };
    bool ok = p.f && check_markers(t, p.f, err) && render(&p, turns, n, thinking, err) &&
              add_bos(t, p.f, out, err) &&
              tokenizer_encode_spans(t, text.data, text.len, p.spans, p.n_spans, false, out, err);
    free(p.spans);
    text_free(&text);
    return ok;
}
