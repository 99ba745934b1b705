// Whole numbers in JSON that nobody can be trusted to have written.
#pragma once

#include <cstdint>

#include "base/json_value.h"

namespace mixtune {

// The number; -1 where it is no whole one from 0 to 2^53, up to which every JSON reader agrees.
inline int64_t whole_number(const nlohmann::json& value) {
  constexpr uint64_t kMost = uint64_t{1} << 53;
  return value.is_number_unsigned() && value.get<uint64_t>() <= kMost ? value.get<int64_t>() : -1;
}

}  // namespace mixtune
