// QuantState: what bitsandbytes says of a tensor in NF4, as JSON in a tensor beside it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/dtype.h"
#include "tensor/tensor.h"

namespace mixtune {

constexpr size_t kMaxQuantStateBytes = 4096;  // of the text: bitsandbytes writes about 200

struct QuantState {
  DType dtype = DType::kF32;         // of the values: fp32, bf16 or fp16
  Shape shape;                       // of at least one element, and fewer than 2^48
  int64_t block = 0;                 // elements that share an absmax: a power of two
  std::optional<float> offset = {};  // of absmax; none: they are not quantised

  int64_t blocks() const { return (shape.elements() + block - 1) / block; }
};

// Nothing in the text is trusted: throws UserError for what bitsandbytes does not write, and for what mixtune does not
// read.
QuantState parse_quant_state(std::string_view json, const std::string& where);

}  // namespace mixtune
