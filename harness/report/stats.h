/* stats.h - the statistics of paired comparisons.  Pure functions. */
#ifndef QDELTA_STATS_H
#define QDELTA_STATS_H

#include <stddef.h>
#include <stdint.h>

struct interval {
    double lo, hi;
};

#endif
