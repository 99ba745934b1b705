#include "report/alerts.h"

#include <cmath>

namespace mixtune {

void Alerts::look(const StepRecord& record) {
  if (record.target_tokens == 0) return add(record.step, "none of its tokens is a target");
  if (!std::isfinite(record.loss) || !std::isfinite(record.grad_norm))
    return add(record.step, "the loss or the gradient norm is not finite: it changed nothing");
  for (std::string& warning : watchdog_.look(record)) add(record.step, std::move(warning));
}

void Alerts::look(const EvalRecord& record) {
  if (std::isfinite(record.eval_loss)) return;
  add(record.step, "the loss of the evaluation" + (record.name.empty() ? "" : " of " + record.name) + " is not finite");
}

// Successive steps with the same text are one alert.
void Alerts::add(int64_t step, std::string text) {
  if (!all_.empty() && all_.back().text == text && all_.back().last + 1 == step && left_out_ == 0)
    all_.back().last = step;
  else if (all_.size() < kMost)
    all_.push_back({step, step, std::move(text)});
  else
    ++left_out_;
}

}  // namespace mixtune
