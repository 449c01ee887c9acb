#include "random.h"

#include <math.h>
#include <stdbool.h>

enum { N = 624, M = 397 };

static void mt_init(struct py_random *r, uint32_t seed)
{
    r->state[0] = seed;
    for (uint32_t i = 1; i < N; i++)
        r->state[i] = 1812433253u * (r->state[i - 1] ^ r->state[i - 1] >> 30) + i;
    r->index = N;
}

void py_random_seed(struct py_random *r, uint64_t seed)
{
    uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
    int len = key[1] ? 2 : 1;
    uint32_t *s = r->state;
    mt_init(r, 19650218u);
    int i = 1, j = 0;
    for (int k = N; k; k--) {
        s[i] = (s[i] ^ (s[i - 1] ^ s[i - 1] >> 30) * 1664525u) + key[j] + (uint32_t)j;
        if (++i >= N) {
            s[0] = s[N - 1];
            i = 1;
        }
        if (++j >= len)
            j = 0;
    }
    for (int k = N - 1; k; k--) {
        s[i] = (s[i] ^ (s[i - 1] ^ s[i - 1] >> 30) * 1566083941u) - (uint32_t)i;
        if (++i >= N) {
            s[0] = s[N - 1];
            i = 1;
        }
    }
    s[0] = 0x80000000u;
}

static uint32_t mt_next(struct py_random *r)
{
    uint32_t *s = r->state;
    if (r->index >= N) {
        for (int k = 0; k < N; k++) {
            uint32_t y = (s[k] & 0x80000000u) | (s[(k + 1) % N] & 0x7fffffffu);
            s[k] = s[(k + M) % N] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
        }
        r->index = 0;
    }
    uint32_t y = s[r->index++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

uint32_t py_random_bits(struct py_random *r, int k)
{
    return mt_next(r) >> (32 - k);
}

uint32_t py_random_below(struct py_random *r, uint32_t n)
{
    int k = 0;
    while (k < 32 && n >> k)
        k++;
    uint32_t v;
    do
        v = py_random_bits(r, k);
    while (v >= n);
    return v;
}

double py_random_unit(struct py_random *r)
{
    uint32_t a = mt_next(r) >> 5, b = mt_next(r) >> 6;
    return (a * 67108864.0 + b) / 9007199254740992.0;
}

void py_random_shuffle(struct py_random *r, int *x, size_t n)
{
    for (size_t i = n; i-- > 1;) {
        uint32_t j = py_random_below(r, (uint32_t)i + 1);
        int t = x[i];
        x[i] = x[j];
        x[j] = t;
    }
}

void py_random_sample(struct py_random *r, int n, int k, int *out, int *scratch)
{
    double set_size = 21;
    if (k > 5)
        set_size += pow(4, ceil(log(3.0 * k) / log(4)));
    if (n <= set_size) {
        for (int i = 0; i < n; i++)
            scratch[i] = i;
        for (int i = 0; i < k; i++) {
            uint32_t j = py_random_below(r, (uint32_t)(n - i));
            out[i] = scratch[j];
            scratch[j] = scratch[n - i - 1];
        }
        return;
    }
    for (int i = 0; i < k; i++) {
        bool taken;
        do {
            out[i] = (int)py_random_below(r, (uint32_t)n);
            taken = false;
            for (int j = 0; j < i; j++)
                taken |= out[j] == out[i];
        } while (taken);
    }
}

uint64_t random_at(uint64_t seed, uint64_t counter)
{
    uint64_t z = seed + (counter + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

double random_unit_at(uint64_t seed, uint64_t counter)
{
    return (double)(random_at(seed, counter) >> 11) / 9007199254740992.0;
}
