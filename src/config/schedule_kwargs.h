// What `lr_scheduler_kwargs` may have: for each schedule the arguments of transformers' function of it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "config/config.h"

namespace mixtune {

// The schedule's argument of this name, as it is set, or as it is where it is not; none where it then has no value.
std::optional<double> number_kwarg(const OptimizerSettings& settings, std::string_view name);
std::string text_kwarg(const OptimizerSettings& settings, std::string_view name);

// Throws UserError for a name that the schedule does not have, a bad value, and values that do not go together.
void check_schedule_kwargs(const Config& config);

}  // namespace mixtune
