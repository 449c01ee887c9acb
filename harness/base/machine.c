#include "machine.h"

#include <stdio.h>
#include <string.h>

/* The number after name in a file of "name: number" lines, or the file's only number when name is ""; 0: none. */
static uint64_t number_in(const char *path, const char *name)
{
    FILE *f = fopen(path, "r");
    char line[256];
    unsigned long long n = 0;
    size_t len = strlen(name);
    while (f && !n && fgets(line, sizeof line, f))
        if (strncmp(line, name, len) == 0 && sscanf(line + len, "%llu", &n) != 1)
            n = 0;
    if (f)
        fclose(f);
    return n;
}

static uint64_t lower(uint64_t a, uint64_t b)
{
    return b && b < a ? b : a;
}

/* What a control group file says below root and path, and in a container, where the group is the root itself. */
static uint64_t group_limit(const char *root, const char *path, const char *file)
{
    char full[512];
    uint64_t limit = UINT64_MAX;
    for (int own = 0; own < 2; own++) {
        snprintf(full, sizeof full, "%s%s/%s", root, own ? path : "", file);
        limit = lower(limit, number_in(full, ""));
    }
    return limit;
}

uint64_t memory_available(void)
{
    uint64_t have = number_in("/proc/meminfo", "MemAvailable:") * 1024;
    FILE *f = fopen("/proc/self/cgroup", "r");
    char line[384];
    while (f && have && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        if (path && path == names + 1)
            have = lower(have, group_limit("/sys/fs/cgroup", path + 1, "memory.max"));
        else if (path && strncmp(names + 1, "memory:", 7) == 0)
            have = lower(have, group_limit("/sys/fs/cgroup/memory", path + 1, "memory.limit_in_bytes"));
    }
    if (f)
        fclose(f);
    return have;
}
