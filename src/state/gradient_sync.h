// GradientSync: a step's gradients, from the first micro-batch that writes one to the sums over all that hold the
// parameter. Its order is that of a step: begin_step; each micro-batch writes (gradient, notify), the last one after
// begin_last_micro_batch, and says how far backward has come (complete_from); finish.
#pragma once

#include <vector>

#include "state/holders.h"
#include "state/storage.h"
#include "tensor/lane.h"

namespace mixtune {

class GradientSync {
 public:
  static constexpr const char* kSums = "sum of gradients";  // as traffic and the profiler name them

  // All three outlive this. With a sharded layout only the owned pieces get their sums.
  GradientSync(const ParamLayout& layout, const Storage& gradients, const Holders& holders);

  // Forgets the gradients: the next ones are written, not added.
  void begin_step();
  // No gradient that is written from now on is added to later.
  void begin_last_micro_batch();

  struct Gradient {
    Tensor tensor;    // empty where the parameter is not trained
    bool accumulate;  // false: write over what is there (the first of a step); true: add to it
  };
  // Where this micro-batch's gradient of `param` goes. The writer calls notify when it is written.
  Gradient gradient(int param) const { return {gradients_.part(param), written_[param]}; }
  void notify(int param);

  // This micro-batch has no further gradient for parameters of this stage at `place` and after. Those of the last one
  // begin to be summed over their holders, beside what the ctx does. All ranks call this, in the same order.
  void complete_from(Ctx& ctx, const Place& place);
  // Ends the step: all sums are there for the ctx's next op. All ranks call this, once a step.
  void finish(Ctx& ctx);

  // The sum over this rank's micro-batches: zero where none of them wrote a gradient.
  Tensor finished(Ctx& ctx, int param);

 private:
  void reduce(Ctx& ctx, size_t bucket);

  const ParamLayout& layout_;
  const Storage& gradients_;
  const Holders& holders_;
  std::vector<bool> written_;  // each parameter's, since begin_step
  bool in_step_ = false, last_micro_batch_ = false;
  std::vector<bool> reduced_;         // each bucket's sums are there or on their way
  std::vector<LaneMark> reduced_at_;  // and there after
};

}  // namespace mixtune
