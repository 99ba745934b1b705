#pragma once

#include <cstdint>

namespace mixtune {

constexpr int32_t kIgnoreTarget = -100;  // a label that is not trained; such rows are not among a batch's targets

}  // namespace mixtune
