// stream_values: from files to a device, whatever a file has the values as.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/stored_values.h"
#include "checkpoint/stream.h"

namespace mixtune {

// What is to be read, and the tensors that it fills.
class ValueUses {
 public:
  // Elements [place, place + to.elements()) of `from`. `name`, for messages, outlives this.
  void add(const StoredValues& from, int64_t place, const Tensor& to, const std::string& name);

 private:
  friend void stream_values(Ctx& ctx, ValueUses uses, WrittenDigests written);

  // Of a tensor in 4 bits.
  struct Coded {
    StoredValues from;
    int64_t place;
    Tensor to;
    const std::string* name;
  };
  std::vector<StreamUse> values_;
  std::vector<Coded> coded_;
};

// Fills all tensors as stream() does, which says what it takes and throws; those in 4 bits are dequantised on the host.
void stream_values(Ctx& ctx, ValueUses uses, WrittenDigests written);

}  // namespace mixtune
