// Counts calls of operator new, in test programs that compile count_allocations.cpp.
#pragma once

#include <cstdint>

namespace mixtune {

struct AllocationCount {
  int64_t made = 0, freed = 0;
  int64_t alive() const { return made - freed; }
};
AllocationCount allocation_count();

}  // namespace mixtune
