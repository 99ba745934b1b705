// The keys that need evaluations, held against those that say when a run evaluates and saves.
#pragma once

#include <string>
#include <vector>

#include "config/config.h"

namespace mixtune {

// The metrics that metric_for_best_model may name: "eval_loss", "eval_perplexity", or those of each set by its name,
// "eval_chat_loss", ...
std::vector<std::string> evaluation_metrics(const Config& config);

// Throws UserError where load_best_model_at_end or early_stopping_patience has not the evaluations that it needs, or
// does not say which set's; and for a metric that there is not. Warns of a key that has no effect.
void check_evaluations(const Config& config);

// Throws UserError where one of these is set and the data turn out to have none for validation, as `split` may say.
void check_has_validation(const Config& config, bool has_validation);

}  // namespace mixtune
