// Steps: training steps on random weights and tokens.
#pragma once

#include <memory>
#include <vector>

#include "bench/step.h"
#include "data/random_batch.h"
#include "train/step_runner.h"
#include "train/warm_up.h"

namespace mixtune {

// Random weights, made on the device: in host memory (initialise_weights) a model of a bench's size takes minutes.
void fill_weights(Instance& instance);

BatchLimits limits_of(const StepBench& bench);

class BalancedRouting;

// The steps of a bench, one after the other. Each rank has its own tokens.
class Steps {
 public:
  // Both outlive this.
  Steps(const StepBench& bench, Instance& instance);
  ~Steps();

  void run(const StepRunner::Requests& requests = {});
  // Runs steps for about so many seconds: as many on every rank.
  void settle(double seconds);

  StepRunner::Result read() { return runner_.read(); }
  // The targets of the losses that read() gives: the update adds up those of all ranks.
  int64_t targets_read() const { return bench_.mode == BenchMode::kStep ? targets() : targets() / ranks_; }

 private:
  int64_t targets() const;  // on all ranks

  const StepBench& bench_;
  Instance& instance_;
  int64_t ranks_;
  StepRunner runner_;
  std::vector<std::unique_ptr<RandomBatch>> random_;
  std::vector<Batch> batches_;
  std::unique_ptr<BalancedRouting> routing_;
  int64_t step_ = 0;
};

}  // namespace mixtune
