/* scratch.h - a folder under /tmp for a test or a test program: paths in it, and its end.
 *
 * make_scratch and one of the two remove_.. go into the list of tests as setup and teardown. */
#ifndef QDELTA_TEST_SCRATCH_H
#define QDELTA_TEST_SCRATCH_H

#include <unistd.h>

#include "check.h"

#include "base/base.h"

static char scratch_dir[64];

static inline int make_scratch(void **state)
{
    (void)state;
    snprintf(scratch_dir, sizeof scratch_dir, "/tmp/qdelta-test-XXXXXX");
    return mkdtemp(scratch_dir) ? 0 : -1;
}

/* Good for eight calls. */
static inline const char *in_dir(const char *name)
{
    static char path[8][256];
    static int turn;
    char *p = path[turn++ & 7];
    snprintf(p, sizeof path[0], "%s/%s", scratch_dir, name);
    return p;
}

static inline void remove_tree(const char *path)
{
    char **names;
    size_t n;
    if (dir_exists(path) && dir_names(path, &names, &n, NULL)) {
        for (size_t i = 0; i < n; i++) {
            struct text below = { 0 };
            path_join(&below, path, names[i]);
            remove_tree(text_str(&below));
            text_free(&below);
        }
        names_free(names, n);
        rmdir(path);
    } else {
        unlink(path);
    }
}

static inline int remove_scratch(void **state)
{
    (void)state;
    remove_tree(scratch_dir);
    return dir_exists(scratch_dir) ? -1 : 0;
}

/* Fails where a test left something behind. */
static inline int remove_empty_scratch(void **state)
{
    (void)state;
    return rmdir(scratch_dir);
}

/* The files that the writer of Hugging Face folders makes, and their folder: it must hold nothing else. */
static inline void remove_hf_folder(const char *folder)
{
    static const char *const names[] = { "config.json", "model.safetensors", "generation_config.json", "tokenizer.json",
                                         "tokenizer_config.json" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    CHECK(rmdir(folder) == 0, "%s holds something unexpected", folder);
}

#endif
