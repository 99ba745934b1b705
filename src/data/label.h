#pragma once

#include <cstdint>

namespace mixtune {

constexpr int32_t kIgnoreTarget = -100;  // a label that is not trained: a batch's targets leave such rows out

}  // namespace mixtune
