#include "train/step_guard.h"

#include <fmt/format.h>

#include <cmath>

#include "base/error.h"
#include "base/log.h"

namespace mixtune {

namespace {

constexpr const char* kMend =
    "lower learning_rate or raise warmup_steps, and look at the data; earlier checkpoints are intact";

}  // namespace

void StepGuard::check(StepRecord& record) {
  const bool finite = std::isfinite(record.loss) && std::isfinite(record.grad_norm);
  const bool skips = !finite && skipped_.in_a_row < options_.skip_nonfinite_steps;
  if (skips) skip(record);
  record.skipped_steps = skipped_.count;
  if (skips) return;
  if (finite) return watch(record);
  const std::string before =
      skipped_.in_a_row > 0 ? fmt::format("; {} before it in a row were skipped", skipped_.in_a_row) : "";
  throw Error(fmt::format("step {}", record.step),
              fmt::format("training went bad: loss {}, gradient norm {}{}", record.loss, record.grad_norm, before),
              kMend, ExitCode::kWentBad);
}

void StepGuard::skip(const StepRecord& record) {
  ++skipped_.count;
  ++skipped_.in_a_row;
  if (options_.say)
    log_warning("step {}: loss {}, gradient norm {}: skipped, weights stay as they are ({} in a row, of {} at most)",
                record.step, record.loss, record.grad_norm, skipped_.in_a_row, options_.skip_nonfinite_steps);
}

void StepGuard::watch(const StepRecord& record) {
  skipped_.in_a_row = 0;
  const std::optional<double> limit = watchdog_.loss_limit();
  for (const std::string& warning : watchdog_.look(record))
    if (options_.say) log_warning("step {}: {}", record.step, warning);
  if (!options_.stop_on_divergence || !watchdog_.has_diverged()) return;
  throw Error(fmt::format("step {}", record.step),
              fmt::format("training diverged: lm_loss {:.4g}, for {} steps over {:.4g}, {} times its smallest mean of "
                          "{} steps",
                          record.lm_loss, watchdog_.steps_over(), *limit, Watchdog::kLossFactor, RunningMean::kSteps),
              kMend, ExitCode::kWentBad);
}

}  // namespace mixtune
