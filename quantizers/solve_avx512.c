#if defined(__x86_64__)
#define SOLVE_SET solve_avx512
#define SOLVE_LINEAR linear_avx512
#include "solve_lanes.h"
#else
typedef int solve_avx512_is_for_x86;
#endif
