// stream: from files to a device at the speed of the disk, through a ring of host buffers.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "tensor/ctx.h"

namespace mixtune {

// Neighbouring elements in a file, and the tensor that they fill.
struct StreamUse {
  const SafetensorsFile* file;
  uint64_t begin;           // byte, of the first element
  DType dtype;              // a weight's (is_weight_dtype)
  Tensor to;                // [n]
  const std::string* name;  // for messages
};

// Fills all tensors; they are there when this returns. Takes 256 MiB of host memory, the ring, whatever their size; and
// of the ctx's stack a buffer's size (16 MiB) where types differ. Throws UserError where a value is not finite, and
// Error where a file cannot be read or has changed since it was opened.
void stream(Ctx& ctx, std::vector<StreamUse> uses);

}  // namespace mixtune
