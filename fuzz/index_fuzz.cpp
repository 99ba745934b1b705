// Any text as an index: refused with a UserError, or names of files in the index's own folder.
#include <cstdlib>

#include "base/error.h"
#include "checkpoint/index.h"

using namespace mixtune;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const WeightMap weight_map = parse_index(text, "fuzz");
    for (const auto& [tensor, file] : weight_map)
      if (file.find('/') != std::string::npos || file == "..") abort();
    if (parse_index(format_index(weight_map, 0), "fuzz") != weight_map) abort();
  } catch (const UserError&) {
  }
  return 0;
}
