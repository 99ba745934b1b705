// ParallelReport: what ranks tell each other of a step, for its record.
#pragma once

#include <memory>
#include <vector>

#include "metrics/metric_sink.h"
#include "model/instance.h"
#include "train/scalars.h"

namespace mixtune {

class ParallelReport {
 public:
  // `instance` has several ranks, and outlives this.
  explicit ParallelReport(Instance& instance);
  ~ParallelReport() { instance_.ranks().traffic->forget_ctx(); }
  ParallelReport(const ParallelReport&) = delete;
  ParallelReport& operator=(const ParallelReport&) = delete;

  // Of a step. Allocates for more micro-batches than any step before had.
  void begin(int64_t micro_batches);
  // Before a micro-batch's forward_backward: where its router statistics go.
  Tensor add(const Batch& batch);
  // At the end of the step, when the host has waited for the device. All ranks call this: a small all-gather, and one
  // more wait. Valid until the next read.
  const ParallelRecord& read();

 private:
  void count_routed();

  Instance& instance_;
  int64_t layers_, experts_;
  int64_t tokens_ = 0, added_ = 0;  // of this rank; micro-batches
  std::unique_ptr<Arena> arena_;    // host memory
  Tensor router_stats_;             // [micro-batches, L, 2, E] fp64
  Tensor own_;                      // this rank's numbers
  Scalars all_;                     // those of all ranks
  std::vector<double> routed_;      // [E] of a layer
  ParallelRecord record_;
};

}  // namespace mixtune
