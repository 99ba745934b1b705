#include "checkpoint/shards.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "checkpoint/index.h"

namespace mixtune {

std::vector<std::vector<TensorEntry>> cut_into_shards(std::vector<TensorEntry> tensors, uint64_t max_shard_size) {
  std::vector<std::vector<TensorEntry>> shards;
  uint64_t used = 0;
  for (TensorEntry& tensor : tensors) {
    const uint64_t bytes = tensor.bytes();
    if (shards.empty() || used + bytes > max_shard_size) {
      shards.emplace_back();
      used = 0;
    }
    used += bytes;
    shards.back().push_back(std::move(tensor));
  }
  for (std::vector<TensorEntry>& shard : shards)
    std::ranges::stable_sort(shard, std::greater(), [](const TensorEntry& entry) { return dtype_size(entry.dtype); });
  return shards;
}

std::string shard_name(size_t i, size_t count) {
  return count == 1 ? kWeightsFile : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, count);
}

}  // namespace mixtune
