// Any bytes as a safetensors file: refused with a UserError, or tensors that share out the file.
#include <cstdlib>

#include "base/error.h"
#include "checkpoint/safetensors.h"

using namespace mixtune;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  try {
    uint64_t bytes = 0;
    for (const auto& [name, tensor] : parse_safetensors(file, size, "fuzz")) {
      if (tensor.begin > tensor.end || tensor.begin < sizeof(uint64_t) || tensor.end > size) abort();
      if (tensor.dtype && tensor.shape.elements() * dtype_size(*tensor.dtype) != tensor.bytes()) abort();
      bytes += tensor.bytes();
    }
    if (bytes > size - sizeof(uint64_t)) abort();
  } catch (const UserError&) {
  }
  return 0;
}
