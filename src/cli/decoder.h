// A model that continues a document.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/batch_builder.h"
#include "model/instance.h"
#include "train/run_adapters.h"

namespace mixtune {

// Computes the whole document at every call: nothing is cached yet.
class Decoder {
 public:
  // Reads these weights. Documents have at most `max_tokens` tokens.
  Decoder(const MixtralConfig& config, const ModelPaths& paths, int64_t max_tokens, const InstanceOptions& options);

  // [count, V] logits after each of the last `count` tokens of `ids`, a document with at least as many.
  std::vector<float> logits(const std::vector<int32_t>& ids, int64_t count);

 private:
  Instance instance_;
  Saved saved_;
  BatchBuilder builder_;
};

}  // namespace mixtune
