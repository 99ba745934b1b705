// RouterReport: what the routers of a step did, over all ranks and micro-batches, for its record.
#pragma once

#include "metrics/metric_sink.h"
#include "model/mixtral_config.h"
#include "tensor/tensor.h"

namespace mixtune {

class RouterReport {
 public:
  explicit RouterReport(const MixtralConfig& config);

  // Of what router_health adds up: [L, E + kTallyNumbers] fp64.
  const Shape& tally_shape() const { return shape_; }
  // Of a tally on the host, the sum over ranks; and of ExpertBias. Valid until the next read.
  const RouterRecord& read(const double* tally, std::vector<double> bias_ranges);

 private:
  void read_layer(size_t layer, const double* tally);

  int64_t experts_;
  Shape shape_;
  RouterRecord record_;
};

}  // namespace mixtune
