#include "train/early_stopping.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "metrics/fields.h"

namespace mixtune {

Evaluation metrics_of(std::span<const EvalRecord> records) {
  Evaluation metrics;
  for (const EvalRecord& record : records)
    for (const Field<EvalRecord>& field : kEvalFields)
      if (const std::string_view name = field.name; name == "eval_loss" || name == "eval_perplexity")
        metrics[name_of(field, record)] = field.get(record);
  std::erase_if(metrics, [](const auto& metric) { return !std::isfinite(metric.second); });
  return metrics;
}

EarlyStopping::EarlyStopping(const Options& options, const Improvement& before)
    : options_(options),
      improvement_(before.metric == options.metric ? before : Improvement{.metric = options.metric}) {}

void EarlyStopping::add(const Evaluation& evaluation) {
  const auto found = evaluation.find(options_.metric);
  std::optional<double>& best = improvement_.best;
  const bool finite = found != evaluation.end();
  const bool better = finite && (!best || *best - found->second > options_.threshold);
  improvement_.evaluations_since = better ? 0 : improvement_.evaluations_since + 1;
  if (finite) best = std::min(found->second, best.value_or(found->second));
}

std::string EarlyStopping::str() const {
  return fmt::format("{} evaluation{} without improvement on {}{}", improvement_.evaluations_since,
                     improvement_.evaluations_since == 1 ? "" : "s", options_.metric,
                     improvement_.best ? fmt::format(" {:.6g}", *improvement_.best) : "");
}

}  // namespace mixtune
