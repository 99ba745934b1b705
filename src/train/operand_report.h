// OperandReport: what 8 bits lose of the operands of a step's products, on all ranks, for its record.
#pragma once

#include <optional>
#include <vector>

#include "metrics/metric_sink.h"
#include "model/instance.h"

namespace mixtune {

class OperandReport {
 public:
  // The steps that are looked at: reading each operand once more would cost too much in all of them.
  static bool is_due(int64_t step) { return shows_layers(step); }

  // `instance` multiplies in 8 bits, and outlives this.
  explicit OperandReport(Instance& instance);
  ~OperandReport() { instance_.watch({}); }
  OperandReport(const OperandReport&) = delete;
  OperandReport& operator=(const OperandReport&) = delete;

  // Looks at the operands of a step, from here to read(). All ranks call both, in the same steps.
  void begin();
  // A small all-gather, and a wait; null where the step was not begun. Valid until the next read.
  const std::vector<OperandLoss>* read();

 private:
  Tensor of_rank(int rank) const { return tallies_.row(rank); }
  void add_up();

  Instance& instance_;
  std::optional<Arena> device_arena_, host_arena_;
  Tensor tallies_, host_;  // [ranks, parameters, kOperandRoles, kHealthNumbers] int64
  bool begun_ = false;
  std::vector<OperandLoss> losses_;  // in the order of kOperandFields
};

}  // namespace mixtune
