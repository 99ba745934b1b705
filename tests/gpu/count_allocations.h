// Counts what goes through operator new, in programs that link count_allocations.cpp.
#pragma once

#include <cstdint>

namespace mixtune {

struct AllocationCount {
  int64_t made = 0, freed = 0;
  int64_t alive() const { return made - freed; }
};
AllocationCount allocation_count();

}  // namespace mixtune
