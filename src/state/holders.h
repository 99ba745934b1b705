// Holders: the ranks that hold the same parameters.
#pragma once

#include <memory>

#include "parallel/communicator.h"
#include "state/param_layout.h"

namespace mixtune {

// The ranks that hold the same parameters, and whether each keeps all of the optimizer's state. The communicators
// outlive what is made of them.
struct Replicas {
  Communicator* dense = nullptr;    // of ranks with the same dense parameters; null: this rank alone
  Communicator* experts = nullptr;  // of ranks with the same experts; null: this rank alone
  bool shard_optimizer = false;     // ZeRO stage 1 (ParamLayout::Copies::sharded)
};

class Holders {
 public:
  explicit Holders(const Replicas& replicas)
      : alone_(make_single_communicator()),
        dense_(replicas.dense ? replicas.dense : alone_.get()),
        experts_(replicas.experts ? replicas.experts : alone_.get()) {}

  Communicator& dense() const { return *dense_; }
  Communicator& experts() const { return *experts_; }
  Communicator& of(const ParamLayout::Bucket& bucket) const { return bucket.of_experts ? *experts_ : *dense_; }

 private:
  std::unique_ptr<Communicator> alone_;
  Communicator *dense_, *experts_;
};

}  // namespace mixtune
