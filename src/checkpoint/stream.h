// stream: from files to a device at the speed of the disk, through a ring of host buffers.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "checkpoint/written_digests.h"
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

// Fills all tensors; they are there when this returns. Takes 256 MiB of host memory, the ring, whatever their size (on
// the CPU 16 MiB); and of the ctx's stack a buffer's size (16 MiB; 1 MiB) where types differ. Throws UserError where a
// value is not finite or a tensor is not as it was written, and Error where a file cannot be read or has changed since
// it was opened.
void stream(Ctx& ctx, std::vector<StreamUse> uses, WrittenDigests written);

}  // namespace mixtune
