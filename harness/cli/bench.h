/* bench.h - what the files of `bench` share.
 *
 *   cmd_bench.c      the works, and how they are timed beside the peaks that bound them
 *   bench_shape.c    random weights for --shape
 *   bench_report.c   machine facts; the table, JSON, and the files of -o */
#ifndef QDELTA_CLI_BENCH_H
#define QDELTA_CLI_BENCH_H

#include "cli/cli.h"

struct bench_row {
    char model[64], work[48], bound[8];     /* bound: name of the peak that limits the work */
    double tokens_s, items_s;               /* items_s 0: the work has no items */
    double share;                           /* of that peak, as measured beside the work */
};

struct bench_facts {
    char cpu[128], caches[96];
    double memory_gb;
    const char *kernels, *act;
    int threads;
    double peaks[2][PEAK_COUNT];            /* all threads; one thread */
};

struct bench_results {
    struct bench_facts facts;
    struct bench_row *rows;
    size_t n, cap;
};

void bench_machine(struct bench_facts *f);  /* cpu, caches, memory: "unknown" or 0 where the system does not say */
/* Print to stdout, as a table or JSON; with -o also DIR/bench.md and DIR/bench.tsv. */
bool bench_print(const struct settings *s, const struct bench_results *r, struct error *err);

/* The model of --shape with weights, cut to --layers.  Close with bench_shape_close, also after a failure. */
bool bench_shape_open(struct model *m, const struct settings *s, struct error *err);
void bench_shape_close(struct model *m);

#endif
