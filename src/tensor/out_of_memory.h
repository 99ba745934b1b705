// OutOfMemory: thrown where a device's memory is used up.
#pragma once

#include <string_view>

#include "base/error.h"

namespace mixtune {

// What memory is for.
enum class MemoryOf { kState, kActivations };

// Advice from code that does not know the settings.
inline constexpr std::string_view kLessMemory = "use a smaller batch, shorter rows or a smaller model";

// How to mend it depends on the settings: code that knows them catches this.
class OutOfMemory : public Error {
 public:
  OutOfMemory(MemoryOf part, std::string_view what, ExitCode code = ExitCode::kFailed)
      : Error("out of memory", what, "", code), part_(part) {}
  MemoryOf part() const { return part_; }

 private:
  MemoryOf part_;
};

}  // namespace mixtune
