// Settings with which a training run takes less memory, in the order to try them.
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
  bool of_state;         // of weights, gradients or the optimizer's state; false: of activations
  bool changes_numbers;  // by another dtype, not only by the order of sums
};

// The savings that `config` does not have yet on so many GPUs, the best first: those that leave the numbers as they
// are, then the others. Each by itself gives a configuration that runs. per_device_train_batch_size comes without the
// gradient_accumulation_steps that make up for it.
std::vector<Saving> savings(const Config& config, int64_t ranks);

// `config` with another value for one key.
Config with(Config config, std::string_view key, std::string_view value);

// Advice for an "out of memory" of a run on so many ranks: names nothing that is set already.
std::string memory_advice(const Config& config, int64_t ranks, bool on_gpu, MemoryOf part);

}  // namespace mixtune
