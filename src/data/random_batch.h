// A batch of random tokens: for warm-up and benchmarks.
#pragma once

#include "data/batch_builder.h"

namespace mixtune {

class RandomBatch {
 public:
  // Every row but the last of a document has a target.
  struct Shape {
    int64_t tokens, document_tokens;  // the last document may be shorter
    int64_t vocab_size;
    bool weighted = false;  // each target's weight is 1, and read
  };
  // kPinned for a GPU.
  RandomBatch(const Shape& shape, uint64_t seed, HostMemory memory);

  const Batch& batch() const { return batch_; }

 private:
  BatchBuilder builder_;
  Batch batch_;
};

}  // namespace mixtune
