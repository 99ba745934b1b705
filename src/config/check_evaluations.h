// The keys that need evaluations, held against those that say when a run evaluates and saves.
#pragma once

#include "config/config.h"

namespace mixtune {

// Throws UserError where load_best_model_at_end or early_stopping_patience has not the evaluations that it needs. Warns
// of a key that has no effect.
void check_evaluations(const Config& config);

// Throws UserError where one of these is set and the data turn out to have none for validation, as `split` may say.
void check_has_validation(const Config& config, bool has_validation);

}  // namespace mixtune
