// BestCheckpoint: which of a run's checkpoints had the best evaluation at its step.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "run/manifest.h"

namespace mixtune {

class BestCheckpoint {
 public:
  // `metric`: a name in Manifest::evaluation, of which the smallest is best; empty: none is.
  explicit BestCheckpoint(std::string metric) : metric_(std::move(metric)) {}

  bool is_asked_for() const { return !metric_.empty(); }
  // Learns what the manifests of the folder's checkpoints say. One that cannot be read had no evaluation.
  void read(const std::string& folder);
  void add(int64_t step, const Evaluation& evaluation);

  // The best of these steps, of equals the first; none where none had an evaluation.
  std::optional<int64_t> among(const std::vector<int64_t>& steps) const;
  // "eval_loss 2.5"
  std::string str(int64_t step) const;

 private:
  std::string metric_;
  std::map<int64_t, double> values_;  // by step
};

}  // namespace mixtune
