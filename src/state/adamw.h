// AdamW: the optimizer over a State. Norm and scale stay on the device: a step waits for nothing.
#pragma once

#include <optional>
#include <vector>

#include "config/config.h"
#include "config/lr_groups.h"
#include "kernels/optimizer.h"
#include "state/state.h"

namespace mixtune {

class AdamW {
 public:
  // `state` outlives this. Weight decay applies to tensors of two or more dimensions on disk (projections, experts,
  // router, embeddings), not to norms. The rates in `settings` are peaks. `seed` is that of the stochastic rounding of
  // bf16 state.
  AdamW(State& state, const OptimizerSettings& settings, uint64_t seed);

  // squares [1] fp64 = the sum of the squares of the reduced gradients that this rank counts; of one group, or of all.
  void gradient_squares(Ctx& ctx, const Tensor& squares, std::optional<WeightGroup> group = {});

  // Updates every trained weight with the reduced gradients times grad_scale [1] fp64 (NaN: nothing changes), and has
  // all ranks gather them. step counts from 1.
  struct Step {
    int64_t step;
    double lr_share;  // of its peak, that a group's learning rate is in this step
    Tensor grad_scale;
  };
  void step(Ctx& ctx, const Step& args);
  // Updates one bucket of the layout, whose weights are there, without gathering it.
  void update(Ctx& ctx, size_t bucket, const Step& args);

 private:
  void add_tensors(int param);
  void update_tensors(Ctx& ctx, double peak, const Step& args);

  State& state_;
  OptimizerSettings settings_;
  std::vector<double> peak_of_;              // each parameter's
  std::vector<double> peaks_;                // those that differ
  std::vector<std::vector<uint64_t>> keys_;  // of (seed, name), for each block of each parameter
  // Room for one call's lists, so that no step allocates.
  std::vector<AdamWTensor> tensors_;
  std::vector<Tensor> gradients_;
};

// The 2-norm of the reduced gradients, on the host. For one rank alone.
double gradient_norm(Ctx& ctx, AdamW& optimizer);

}  // namespace mixtune
