/* random.h - CPython's random.Random, bit for bit, and a small counter-based generator.
 *
 * The harness that compat mode reproduces draws its few-shot examples with CPython's generator
 * (MT19937, Matsumoto and Nishimura 1998); methods below follow CPython's Lib/random.py. */
#ifndef QDELTA_RANDOM_H
#define QDELTA_RANDOM_H

#include <stddef.h>
#include <stdint.h>

struct py_random {
    uint32_t state[624];
    int index;
};
void py_random_seed(struct py_random *r, uint64_t seed);            /* random.Random(seed), seed >= 0 */
uint32_t py_random_bits(struct py_random *r, int k);                /* getrandbits(k), 1 <= k <= 32 */
uint32_t py_random_below(struct py_random *r, uint32_t n);          /* _randbelow(n), n >= 1 */
double py_random_unit(struct py_random *r);                         /* random() */
void py_random_shuffle(struct py_random *r, int *x, size_t n);
/* sample(range(n), k) into out[k]; k <= n. scratch: n ints. */
void py_random_sample(struct py_random *r, int n, int k, int *out, int *scratch);

/* SplitMix64 of (seed, counter): the same value whatever thread asks (Steele, Lea, Flood 2014). */
uint64_t random_at(uint64_t seed, uint64_t counter);
double random_unit_at(uint64_t seed, uint64_t counter);             /* [0, 1) */

#endif
