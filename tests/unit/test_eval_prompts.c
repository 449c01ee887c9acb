/* Prompts of the compat mode, byte for byte: digests recorded from lm-evaluation-harness's own prompt builder,
 * over the whole official sets. */
#include "check.h"

#include "eval/eval.h"

static const struct task_options COMPAT = { .data_dir = NULL, .tasks_dir = "tasks", .mode = PROMPT_COMPAT, .shots = -1 };

static const char *data_dir(void)
{
    const char *root = getenv("SHARED_DATA");
    return root ? root : "../shared/data";
}

static void sha_hex(const void *data, size_t len, char hex[65])
{
    struct error err;
    uint8_t digest[32];
    MUST(sha256_bytes(data, len, digest, &err));
    hex_of(digest, 32, hex);
}

/* SHA-256 over the digests of all prompts in order, as the recording was made. */
static void test_whole_sets(void **state)
{
    (void)state;
    static const struct {
        const char *task;
        int shots, count;
        size_t bytes;
        const char *digest, *first;
    } sets[] = {
        { "mmlu", 0, 14042, 7752841, "ce50412adac91d420b24009472390f57ecfd1aeb7766c663c96790f59a477d8a",
          "04ebc0806ad169c848f7078af1359da6f9f2c07f662e9f3cea9a94c7d54cbc7d" },
        { "mmlu", 5, 14042, 42502359, "747cf5960894880f0f68b4b91a5379dd73d79704cf94d4a68858bd9263b45b64",
          "ff9b00310e214beacf4b324da8c9e6c1de4e49cb422f1bcb1f7037b78f40a2a3" },
        { "gsm8k", 5, 1319, 3916470, "50f3d6f75edd51f6b5f6cb39c8469e14f2f86a2b2b20d56c83f5a82fb966c03d",
          "32680f263ba83280e98a8a24ceefed10a722a4cdcd9f4d78e93c45d43143ca66" },
        { "gsm8k_cot", 8, 1319, 3148445, "8d8862c848e25645c09ed797f40a42a85854e67505dda596040b4729a9a3eafe",
          "901fead9abd2535b6d0610c3c90125f38cad81678c4b2b98ec8fb818e3948bde" },
    };
    NEED_SHARED(here, "gsm8k/test.jsonl");
    (void)here;
    for (size_t s = 0; s < ARRAY_LEN(sets); s++) {
        struct error err;
        struct task *t;
        struct task_options o = COMPAT;
        o.data_dir = data_dir();
        o.shots = sets[s].shots;
        MUST(task_open(&t, sets[s].task, &o, &err));
        CHECK(task_size(t) == sets[s].count, "%s: %d items, want %d", sets[s].task, task_size(t), sets[s].count);
        struct sha256 all;
        MUST(sha256_init(&all, &err));
        size_t bytes = 0;
        struct text prompt = { 0 };
        for (int i = 0; i < task_size(t); i++) {
            uint8_t digest[32];
            char hex[65];
            text_clear(&prompt);
            MUST(task_prompt(t, i, &prompt, NULL, NULL, &err));
            bytes += prompt.len;
            MUST(sha256_bytes(prompt.data, prompt.len, digest, &err));
            hex_of(digest, 32, hex);
            CHECK(i || strcmp(hex, sets[s].first) == 0, "%s %d-shot item 0 is %s:\n%s", sets[s].task, sets[s].shots, hex, prompt.data);
            sha256_add(&all, digest, sizeof digest);
        }
        uint8_t digest[32];
        char hex[65];
        sha256_end(&all, digest);
        hex_of(digest, 32, hex);
        CHECK(bytes == sets[s].bytes, "%s %d-shot: %zu bytes, want %zu", sets[s].task, sets[s].shots, bytes, sets[s].bytes);
        CHECK(strcmp(hex, sets[s].digest) == 0, "%s %d-shot: digest %s", sets[s].task, sets[s].shots, hex);
        text_free(&prompt);
        task_close(t);
    }
}

int main(void)
{
    (void)sha_hex;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_sets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
