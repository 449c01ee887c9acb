#if defined(__x86_64__)
#define LINEAR_SET linear_avx512
#include "linear_lanes.h"
#else
typedef int linear_avx512_is_for_x86;
#endif
