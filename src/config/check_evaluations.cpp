#include "config/check_evaluations.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "base/suggest.h"

namespace mixtune {

namespace {

void check_metric(const Config& config) {
  const std::string& metric = config.output.metric_for_best_model;
  const std::vector<std::string> there = evaluation_metrics(config);
  const auto has = [&](const std::string& name) {
    return std::ranges::find(there, name) != there.end();
  };
  if (has(metric)) return;
  if (metric != OutputSettings().metric_for_best_model) {
    const std::string prefixed = "eval_" + metric,
                      near = has(prefixed) ? prefixed : nearest_name(std::string_view(metric).substr(0, 200), there);
    throw UserError(config.where("metric_for_best_model"), fmt::format("unknown value '{}'", printable(metric)),
                    has(prefixed)  ? fmt::format("use '{}'", prefixed)
                    : near.empty() ? fmt::format("use one of: {}", fmt::join(there, ", "))
                                   : fmt::format("did you mean '{}'?", near));
  }
  for (const auto& [key, is_set] : {std::pair("load_best_model_at_end", config.output.load_best_model_at_end),
                                    std::pair("early_stopping_patience", config.output.early_stopping_patience > 0)})
    if (is_set)
      throw UserError(config.where(key), "the sets of validation_file have names: which of them decides is not said",
                      fmt::format("set metric_for_best_model to one of: {}", fmt::join(there, ", ")));
}

}  // namespace

std::vector<std::string> evaluation_metrics(const Config& config) {
  if (config.data.validation_file.named.empty()) return {"eval_loss", "eval_perplexity"};
  std::vector<std::string> names;
  for (const auto& [name, path] : config.data.validation_file.named)
    for (const char* metric : {"loss", "perplexity"}) names.push_back(fmt::format("eval_{}_{}", name, metric));
  return names;
}

void check_evaluations(const Config& config) {
  const OutputSettings& o = config.output;
  check_metric(config);
  const int64_t multiple = o.eval_steps > 0 ? std::max<int64_t>(o.save_steps / o.eval_steps, 1) * o.eval_steps : 0;
  if (o.load_best_model_at_end && (o.save_steps == 0 || multiple != o.save_steps))
    throw UserError(config.where("load_best_model_at_end"),
                    fmt::format("needs checkpoints along the way, each with an evaluation at its step, but save_steps "
                                "is {} and eval_steps is {}",
                                o.save_steps, o.eval_steps),
                    o.eval_steps > 0 ? fmt::format("set save_steps to a multiple of eval_steps, such as {}", multiple)
                    : o.save_steps > 0
                        ? fmt::format("set eval_steps so that save_steps is a multiple of it, such as {}", o.save_steps)
                        : "set eval_steps, and save_steps to a multiple of it");
  if (o.early_stopping_patience > 0 && o.eval_steps == 0)
    throw UserError(config.where("early_stopping_patience"),
                    "counts evaluations, but eval_steps is 0: there is one, at the end", "set eval_steps");
  if (o.early_stopping_threshold > 0 && o.early_stopping_patience == 0)
    log_warning("{}: no effect without early_stopping_patience", config.where("early_stopping_threshold"));
}

void check_has_validation(const Config& config, bool has_validation) {
  if (has_validation) return;
  for (const auto& [key, is_set] : {std::pair("eval_on_start", config.output.eval_on_start),
                                    std::pair("load_best_model_at_end", config.output.load_best_model_at_end),
                                    std::pair("early_stopping_patience", config.output.early_stopping_patience > 0)})
    if (is_set)
      throw UserError(config.where(key), "needs evaluations, and no data are left for validation",
                      "give validation a weight in split, or set validation_file");
}

}  // namespace mixtune
