// Which file of a checkpoint gets which tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"

namespace mixtune {

// Cuts tensors, in their order, into files of up to `max_shard_size` bytes; a larger tensor has a file of its own. In a
// file they stand in the same order, but wide types first, so that each is aligned to its type.
std::vector<std::vector<TensorEntry>> cut_into_shards(std::vector<TensorEntry> tensors, uint64_t max_shard_size);

// The name of file `i` of `count`, from 0: "model.safetensors", or "model-00001-of-00002.safetensors".
std::string shard_name(size_t i, size_t count);

}  // namespace mixtune
