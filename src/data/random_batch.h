// A batch of random tokens: for warm-up and benchmarks.
#pragma once

#include "data/batch_builder.h"

namespace mixtune {

class RandomBatch {
 public:
  // Documents of document_tokens each (the last may be shorter), `tokens` in all; every row but the last of a document
  // has a target; `weighted`: of weight 1. kPinned for a GPU.
  RandomBatch(int64_t tokens, int64_t document_tokens, int64_t vocab_size, uint64_t seed, HostMemory memory,
              bool weighted = false);

  const Batch& batch() const { return batch_; }

 private:
  BatchBuilder builder_;
  Batch batch_;
};

}  // namespace mixtune
