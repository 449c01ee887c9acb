#if defined(__x86_64__)
#define LINEAR_SET linear_avx2
#include "linear_lanes.h"
#else
typedef int linear_avx2_is_for_x86;
#endif
