#include "metrics/run_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/median.h"
#include "metrics/format_numbers.h"

namespace mixtune {

void RunSummary::add(const StepRecord& record) {
  if (milliseconds_.empty()) first_step_ = record.step;
  last_step_ = record.step;
  tokens_ += record.tokens;
  milliseconds_.push_back(record.milliseconds);
  if (record.model_tflops > 0) tflops_.push_back(record.model_tflops);
  if (record.mfu > 0) mfus_.push_back(record.mfu);
  most_memory_gib_ = std::max(most_memory_gib_, record.memory_gib);
  if (record.expert_imbalance > 0) imbalances_.push_back(record.expert_imbalance);
  if (record.drop_rate > 0) dropped_ += record.drop_rate * static_cast<double>(record.tokens);
  most_dropped_ = std::max(most_dropped_, record.drop_rate);
}

void RunSummary::add(const EvalRecord& record) {
  evaluation_milliseconds_ += record.milliseconds;
  auto& [before, best, last] = evaluations_[record.name];
  if (record.step == 0) {
    before = record;
    return;
  }
  last = record;
  if (std::isfinite(record.eval_loss) && (!best || record.eval_loss < best->eval_loss)) best = record;
}

std::vector<std::string> RunSummary::lines(const DeviceScale& scale) const {
  if (milliseconds_.empty()) return {};
  std::vector<std::string> lines = {steps_line()};
  if (!tflops_.empty()) lines.push_back(speed_line(scale));
  if (most_memory_gib_ > 0) lines.push_back(memory_line(scale));
  if (!imbalances_.empty())
    lines.push_back(
        fmt::format("expert imbalance (most / mean, of the layer where it is largest): median {:.2f}, most {:.2f}",
                    median(imbalances_), std::ranges::max(imbalances_)));
  if (most_dropped_ > 0)
    lines.push_back(fmt::format("dropped: {:.2f}% of all pairs of a token and an expert, {:.2f}% in the worst step",
                                100 * dropped_ / static_cast<double>(tokens_), 100 * most_dropped_));
  for (const auto& [name, evaluations] : evaluations_)
    if (evaluations.last) lines.push_back(evaluations.line());
  return lines;
}

std::string RunSummary::steps_line() const {
  const double all = std::accumulate(milliseconds_.begin(), milliseconds_.end(), 0.0);
  std::string line =
      fmt::format("steps {} to {}: {} tokens in {}, {} tok/s; median step {} ms", first_step_, last_step_,
                  grouped(static_cast<double>(tokens_)), duration_text(all / 1000),
                  grouped(all > 0 ? static_cast<double>(tokens_) / all * 1000 : 0), step_time(median(milliseconds_)));
  if (evaluation_milliseconds_ >= 1000)
    line += fmt::format("; {} of evaluations", duration_text(evaluation_milliseconds_ / 1000));
  return line;
}

std::string RunSummary::speed_line(const DeviceScale& scale) const {
  std::string line = fmt::format("the model's operations: median {} of each device", flops_rate(median(tflops_)));
  if (mfus_.empty()) return line;
  line += fmt::format(", mfu {:.1f}%", 100 * median(mfus_));
  return scale.peak.empty() ? line : line + " of " + scale.peak;
}

std::string RunSummary::memory_line(const DeviceScale& scale) const {
  return fmt::format("most memory in use: {:.1f}{} GiB", most_memory_gib_,
                     scale.memory_gib > 0 ? fmt::format(" of {:.0f}", scale.memory_gib) : "");
}

std::string RunSummary::Evaluations::line() const {
  std::string line = fmt::format("evaluations{}: ", last->name.empty() ? "" : " of " + last->name);
  if (before) line += fmt::format("before training lm {:.4f}, ", before->eval_loss);
  if (best) line += fmt::format("best lm {:.4f} (step {}), ", best->eval_loss, best->step);
  return line + fmt::format("last lm {:.4f} (step {})", last->eval_loss, last->step);
}

}  // namespace mixtune
