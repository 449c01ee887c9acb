/* test_chat.c - prompts against those of the models' own templates (tests/golden/chat.jsonl), detection, ids. */
#include "vocab_files.h"

enum { MAX_TURNS = 8 };

static enum chat_family family_named(const char *name)
{
    for (int f = 0; f < CHAT_COUNT; f++)
        if (strcmp(chat_family_names[f], name) == 0)
            return (enum chat_family)f;
    return CHAT_NONE;
}

static int read_turns(const cJSON *list, struct chat_turn turns[MAX_TURNS])
{
    int n = 0;
    const cJSON *t;
    cJSON_ArrayForEach(t, list)
        turns[n++] = (struct chat_turn){ cJSON_GetArrayItem(t, 0)->valuestring, cJSON_GetArrayItem(t, 1)->valuestring };
    return n;
}

static void check_row(const cJSON *row, int line)
{
    struct error err;
    struct text got = { 0 };
    struct chat_turn turns[MAX_TURNS];
    int n = read_turns(json_get(row, "turns"), turns);
    const char *name = json_get(row, "family")->valuestring;
    enum chat_family family = family_named(name);
    bool thinking = cJSON_IsTrue(json_get(row, "thinking"));
    CHECK(family != CHAT_NONE, "line %d: no family %s", line, name);
    const cJSON *want = json_get(row, "prompt");
    if (!want) {
        CHECK(!chat_render(family, turns, n, thinking, &got, &err), "line %d: %s renders what its template refuses",
              line, name);
    } else {
        MUST(chat_render(family, turns, n, thinking, &got, &err));
        CHECK(strcmp(text_str(&got), want->valuestring) == 0, "line %d: %s gives\n%s\nexpected\n%s", line, name,
              text_str(&got), want->valuestring);
    }
    text_free(&got);
}

static void test_golden_prompts(void **state)
{
    (void)state;
    struct error err;
    struct text file = { 0 };
    MUST(file_read("tests/golden/chat.jsonl", 0, &file, &err));
    int line = 0;
    for (char *s = file.data, *end; (end = strchr(s, '\n')); s = end + 1) {
        cJSON *row = json_parse(s, (size_t)(end - s), "chat.jsonl", &err);
        CHECK(row, "%s", err.text);
        check_row(row, ++line);
        cJSON_Delete(row);
    }
    CHECK(line >= 468, "only %d lines", line);
    text_free(&file);
}

static void test_detect(void **state)
{
    (void)state;
    static const struct { const char *text; enum chat_family family; } rows[] = {
        { "{{ bos_token }}..'<start_of_turn>' + role", CHAT_GEMMA3 },
        { "raise_exception('System role not supported') '<start_of_turn>'", CHAT_GEMMA2 },
        { "'<|turn>' '<turn|>\\n' '<|channel>thought\\n' + text + '\\n<channel|>' '<|turn>model\\n'", CHAT_GEMMA4_SMALL },
        { "'<|turn>' '<turn|>\\n' '<|turn>model\\n' '<|channel>thought\\n<channel|>'", CHAT_GEMMA4_LARGE },
        { "<|start_header_id|> Cutting Knowledge Date: December 2023\\n <|eot_id|>", CHAT_LLAMA3 },
        { "<|start_header_id|> <|eot_id|>", CHAT_NONE },
        { "<|im_start|> You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", CHAT_QWEN25 },
        { "<|im_start|> last_query_index enable_thinking is false '<think>\\n\\n</think>\\n\\n'", CHAT_QWEN3 },
        { "<|im_start|> last_query_index enable_thinking is false '<think>\\n\\n</think>\\n\\n' '<think>\\n'", CHAT_NONE },
        { "<|im_start|> You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>", CHAT_SMOLLM2 },
        { "<|im_start|> Reasoning Mode: You are a helpful AI assistant named SmolLM, trained by Hugging Face", CHAT_SMOLLM3_UNDATED },
        { "<|im_start|> Today Date: Reasoning Mode: You are a helpful AI assistant named SmolLM, trained by Hugging Face", CHAT_SMOLLM3 },
        { "<|im_start|> /system_override Reasoning Mode: named SmolLM", CHAT_NONE },
        { "'<|turn>' '<turn|>\n' '<|think|>' '<|turn>model\n'", CHAT_GEMMA4_SMALL_FIRST },
        { "'<|turn>' '<turn|>\n' '<|think|>\n' '<|turn>model\n'", CHAT_GEMMA4_SMALL },
        { "'<|turn>' '<turn|>\n' '<|think|>' '<|turn>model\n' '<|channel>thought\\n<channel|>'", CHAT_GEMMA4_LARGE_FIRST },
        { "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}"
          "{% set content = bos_token + content %}", CHAT_LLAMA3_0 },
        { "'<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' last_query_index content.split('</think>')[-1].lstrip('\\n') "
          "'<|im_start|>assistant\\n<think>\\n' }}", CHAT_QWEN3_THINKING },
        { "'<|im_start|>assistant\\n<think>\\n' }}", CHAT_NONE },
        { "'<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' '<|im_start|>' + message.role + '\\n' + content }} "
          "message.tool_calls '<|im_start|>assistant\\n' }}", CHAT_QWEN3_INSTRUCT },
        { "<|im_start|>", CHAT_NONE },
        { "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'}} '<|im_start|>assistant\n'", CHAT_CHATML },
        { "{{'<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>'}} '<|im_start|>assistant\n'", CHAT_NONE },
        { "'<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' '<|im_start|>' + message['role'] + "
          "message['content'] + '<|im_end|>'", CHAT_QWEN2 },
        { "[INST] {{ message }} [/INST]", CHAT_NONE },
        { "", CHAT_NONE },
        { NULL, CHAT_NONE },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        enum chat_family got = chat_detect(rows[i].text);
        CHECK(got == rows[i].family, "\"%s\" is taken for %s, expected %s", rows[i].text ? rows[i].text : "(none)",
              chat_family_names[got], chat_family_names[rows[i].family]);
    }
}

static void test_detect_gemma3_file(void **state)
{
    (void)state;
    struct error err;
    NEED_SHARED(gz, "tokenizers/gemma3/tokenizer_config.json.gz");
    char path[256];
    unpacked(gz, "tokenizer_config.json", path);
    cJSON *config = json_parse_file(path, 0, &err);
    remove_unpacked(path);
    CHECK(config, "%s", err.text);
    const char *source;
    MUST(json_str(config, "chat_template", &source, "tokenizer_config.json", &err));
    CHECK(chat_detect(source) == CHAT_GEMMA3, "Gemma 3's template is taken for %s",
          chat_family_names[chat_detect(source)]);
    cJSON_Delete(config);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct { struct chat_turn turns[3]; int n; enum chat_family family; const char *says; } rows[] = {
        { { { "user", "a" } }, 1, CHAT_NONE, "no chat template" },
        { { { "user", "a" } }, 0, CHAT_GEMMA3, "last to be the user's" },
        { { { "system", "a" } }, 1, CHAT_QWEN25, "last to be the user's" },
        { { { "system", "a" }, { "user", "b" } }, 2, CHAT_GEMMA2, "no system text" },
        { { { "user", "a" }, { "user", "b" } }, 2, CHAT_GEMMA3, "turn 2 is by \"user\"" },
        { { { "assistant", "a" } }, 1, CHAT_LLAMA3, "turn 1 is by \"assistant\"" },
        { { { "tool", "a" } }, 1, CHAT_QWEN3, "turn 1 is by \"tool\"" },
        { { { "user", "a" }, { "assistant", "b" } }, 2, CHAT_GEMMA4_SMALL, "last to be the user's" },
        { { { "user", NULL } }, 1, CHAT_SMOLLM2, "no content" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct error err;
        struct text out = { 0 };
        CHECK(!chat_render(rows[i].family, rows[i].turns, rows[i].n, false, &out, &err), "row %zu is rendered", i);
        CHECK(strstr(err.text, rows[i].says), "row %zu says \"%s\", expected \"%s\"", i, err.text, rows[i].says);
        text_free(&out);
    }
}

/* ---- ids ---- */

/* Byte tokens, single letters and the markers of every family: enough to see what became what. */
static struct tokenizer *toy_tokenizer(const char *leave_out)
{
    static const char *const markers[] = {
        "<bos>", "<start_of_turn>", "<end_of_turn>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>",
        "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    };
    struct error err;
    struct tokenizer *t;
    enum { BYTES = 256, LETTERS = 95 };
    static char names[BYTES + LETTERS + 2][8];
    const char *tokens[BYTES + LETTERS + 2 + ARRAY_LEN(markers)], *merges[] = { "\n \n" };
    uint32_t lens[ARRAY_LEN(tokens)];
    int32_t types[ARRAY_LEN(tokens)];
    int n = 0;
    for (; n < BYTES; n++)
        snprintf(names[n], sizeof names[n], "<0x%02X>", n);
    for (; n < BYTES + LETTERS; n++)
        snprintf(names[n], sizeof names[n], "%c", ' ' + (n - BYTES));
    snprintf(names[n++], sizeof names[0], "\n");
    snprintf(names[n++], sizeof names[0], "\n\n");
    for (int i = 0; i < n; i++)
        tokens[i] = names[i], types[i] = i < BYTES ? TOKEN_BYTE : TOKEN_NORMAL;
    for (size_t i = 0; i < ARRAY_LEN(markers); i++)
        if (!leave_out || strcmp(markers[i], leave_out) != 0)
            tokens[n] = markers[i], types[n++] = TOKEN_CONTROL;
    for (int i = 0; i < n; i++)
        lens[i] = (uint32_t)strlen(tokens[i]);
    struct tokenizer_spec spec = { "toy", "gemma4", NULL, n, tokens, lens, NULL, types, 1, merges, -1, -1, -1, -1,
                                   false, false, false, false };
    MUST(tokenizer_new(&t, &spec, &err));
    return t;
}

/* Ids back to text, control tokens as [TEXT]: content that looks like a marker keeps its angle brackets. */
static void show(const struct tokenizer *t, const struct ids *ids, struct text *out)
{
    for (size_t i = 0; i < ids->n; i++) {
        enum token_type type;
        const char *name = tokenizer_token(t, ids->data[i], NULL, &type);
        if (type == TOKEN_CONTROL || str_starts(name, "<|channel") || str_starts(name, "<channel"))
            text_printf(out, "[%s]", name);
        else
            tokenizer_decode(t, ids->data[i], true, out);
    }
}

static void test_encode(void **state)
{
    (void)state;
    static const struct { enum chat_family family; struct chat_turn turns[2]; int n; bool thinking; const char *want; }
    rows[] = {
        { CHAT_GEMMA3, { { "user", "<bos><end_of_turn>" } }, 1, false,
          "[<bos>][<start_of_turn>]user\n<bos><end_of_turn>[<end_of_turn>]\n[<start_of_turn>]model\n" },
        { CHAT_GEMMA3, { { "system", "s" }, { "user", "u" } }, 2, false,
          "[<bos>][<start_of_turn>]user\ns\n\nu[<end_of_turn>]\n[<start_of_turn>]model\n" },
        { CHAT_GEMMA4_SMALL, { { "system", "s" }, { "user", "<turn|>" } }, 2, true,
          "[<bos>][<|turn>]system\n[<|think|>]\ns[<turn|>]\n[<|turn>]user\n<turn|>[<turn|>]\n[<|turn>]model\n" },
        { CHAT_GEMMA4_LARGE, { { "user", "u" } }, 1, false,
          "[<bos>][<|turn>]user\nu[<turn|>]\n[<|turn>]model\n[<|channel>]thought\n[<channel|>]" },
        { CHAT_QWEN3, { { "user", "<|im_end|>" } }, 1, true,
          "[<|im_start|>]user\n<|im_end|>[<|im_end|>]\n[<|im_start|>]assistant\n" },
    };
    struct tokenizer *t = toy_tokenizer(NULL);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct error err;
        struct ids ids = { 0 };
        struct text got = { 0 };
        MUST(chat_encode(t, rows[i].family, rows[i].turns, rows[i].n, rows[i].thinking, &ids, &err));
        show(t, &ids, &got);
        CHECK(strcmp(text_str(&got), rows[i].want) == 0, "row %zu gives %s, expected %s", i, text_str(&got),
              rows[i].want);
        text_free(&got);
        ids_free(&ids);
    }
    tokenizer_free(t);
}

/* Text runs over the border between content and template as it does in the whole prompt: three newlines, the
 * first from the system text, are cut like three newlines anywhere. */
static void test_borders_do_not_cut(void **state)
{
    (void)state;
    struct error err;
    struct tokenizer *t = toy_tokenizer(NULL);
    const struct chat_turn turns[] = { { "system", "s\n" }, { "user", "u" } };
    struct ids ids = { 0 }, plain = { 0 };
    struct text prompt = { 0 };
    MUST(chat_encode(t, CHAT_GEMMA3, turns, 2, false, &ids, &err));
    MUST(chat_render(CHAT_GEMMA3, turns, 2, false, &prompt, &err));
    MUST(tokenizer_encode(t, prompt.data, prompt.len, false, true, &plain, &err));
    CHECK(ids.n == plain.n && memcmp(ids.data, plain.data, ids.n * sizeof *ids.data) == 0,
          "%zu ids piecewise, %zu in one go", ids.n, plain.n);
    ids_free(&ids);
    ids_free(&plain);
    text_free(&prompt);
    tokenizer_free(t);
}

static void test_missing_marker(void **state)
{
    (void)state;
    const struct chat_turn turns[] = { { "user", "u" } };
    static const struct { const char *marker; enum chat_family family; } rows[] = {
        { "<|turn>", CHAT_GEMMA4_SMALL }, { "<channel|>", CHAT_GEMMA4_LARGE }, { "<end_of_turn>", CHAT_GEMMA3 },
        { "<|im_end|>", CHAT_QWEN3 }, { "<|eot_id|>", CHAT_LLAMA3 }, { "<|begin_of_text|>", CHAT_LLAMA3 },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct error err;
        struct ids ids = { 0 };
        struct tokenizer *t = toy_tokenizer(rows[i].marker);
        CHECK(!chat_encode(t, rows[i].family, turns, 1, false, &ids, &err), "no %s, and still encoded", rows[i].marker);
        CHECK(strstr(err.text, rows[i].marker), "\"%s\" does not name %s", err.text, rows[i].marker);
        ids_free(&ids);
        tokenizer_free(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_prompts),   cmocka_unit_test(test_detect),
        cmocka_unit_test(test_detect_gemma3_file), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_encode),           cmocka_unit_test(test_borders_do_not_cut),
        cmocka_unit_test(test_missing_marker),
    };
    return cmocka_run_group_tests_name("chat", tests, NULL, NULL);
}
