#if defined(__x86_64__)
#define SOLVE_SET solve_avx2
#define SOLVE_LINEAR linear_avx2
#include "solve_lanes.h"
#else
typedef int solve_avx2_is_for_x86;
#endif
