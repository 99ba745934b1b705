#include "kernels/cpu_math.h"

namespace mixtune::cpu {

const float kExpLowest = -87.0f, kExpHighest = 88.0f;

}  // namespace mixtune::cpu
