#include "run/best_checkpoint.h"

#include <fmt/format.h>

#include "base/error.h"
#include "checkpoint/run_folder.h"

namespace mixtune {

void BestCheckpoint::read(const std::string& folder) {
  if (!is_asked_for()) return;
  for (const int64_t step : checkpoint_steps(folder)) {
    try {
      add(step, read_manifest_alone(folder + "/" + checkpoint_name(step)).evaluation);
    } catch (const Error&) {
      values_.erase(step);
    }
  }
}

void BestCheckpoint::add(int64_t step, const Evaluation& evaluation) {
  values_.erase(step);
  if (const auto found = evaluation.find(metric_); found != evaluation.end()) values_[step] = found->second;
}

std::optional<int64_t> BestCheckpoint::among(const std::vector<int64_t>& steps) const {
  std::optional<int64_t> best;
  for (const int64_t step : steps)
    if (values_.contains(step) && (!best || values_.at(step) < values_.at(*best))) best = step;
  return best;
}

std::string BestCheckpoint::str(int64_t step) const {
  return fmt::format("{} {:.6g}", metric_, values_.at(step));
}

}  // namespace mixtune
