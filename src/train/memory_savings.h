// Settings with which a training run takes less memory: what there is to try, and in which order.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "tensor/out_of_memory.h"

namespace mixtune {

struct Saving {
  std::string_view key;
  std::string value;
  bool of_state;         // of weights, gradients and the optimizer's state; otherwise of activations
  bool changes_numbers;  // more than the order of sums does: other dtypes
};

// What `config` does not set yet on so many GPUs, the best first: what leaves the numbers as they are, then what does
// not. Each by itself is a configuration that runs. per_device_train_batch_size comes without the
// gradient_accumulation_steps that make up for it.
std::vector<Saving> savings(const Config& config, int64_t ranks);

// The same settings but for one key.
Config with(Config config, std::string_view key, std::string_view value);

// How to mend an "out of memory" of a run on so many ranks: nothing that is set already.
std::string memory_advice(const Config& config, int64_t ranks, bool on_gpu, MemoryOf part);

}  // namespace mixtune
