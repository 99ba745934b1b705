// The key `lr_groups`: peak learning rates of groups of weights.
#pragma once

#include <array>
#include <string_view>

#include "config/config.h"

namespace mixtune {

// In the order of WeightGroup.
inline constexpr std::array<std::string_view, 6> kWeightGroups = {"attention", "embeddings", "experts",
                                                                  "head",      "norms",      "router"};

// The peak of a group: its own, or learning_rate.
double peak_learning_rate(const OptimizerSettings& settings, WeightGroup group);

// Throws UserError for a group that there is not, and for a rate out of range.
void check_lr_groups(const Config& config);
// Throws UserError where the head has a rate of its own, but no weights.
void check_head_rate(const Config& config, bool has_tied_head);

}  // namespace mixtune
