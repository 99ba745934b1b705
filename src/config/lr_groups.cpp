#include "config/lr_groups.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>

#include "base/error.h"
#include "base/suggest.h"
#include "config/keys.h"

namespace mixtune {

namespace {

double parse_rate(std::string_view text, std::string_view where) {
  return std::get<double>(parse_value(*find_key("learning_rate"), text, where));
}

}  // namespace

double peak_learning_rate(const OptimizerSettings& settings, WeightGroup group) {
  const auto own = settings.lr_groups.find(kWeightGroups[static_cast<size_t>(group)]);
  return own == settings.lr_groups.end() ? settings.learning_rate : parse_rate(own->second, "lr_groups");
}

void check_lr_groups(const Config& config) {
  for (const auto& [name, text] : config.optimizer.lr_groups) {
    const std::string where = config.where("lr_groups");
    if (std::ranges::find(kWeightGroups, name) == kWeightGroups.end()) {
      const std::string near = nearest_name(std::string_view(name).substr(0, 100), kWeightGroups);
      throw UserError(where, fmt::format("there is no group '{}'", printable(name)),
                      near.empty() ? fmt::format("the groups are: {}", fmt::join(kWeightGroups, ", "))
                                   : fmt::format("did you mean '{}'?", near));
    }
    parse_rate(text, fmt::format("{}: {}", where, name));
  }
}

void check_head_rate(const Config& config, bool has_tied_head) {
  if (has_tied_head && config.optimizer.lr_groups.contains("head"))
    throw UserError(fmt::format("{}: head", config.where("lr_groups")),
                    "the model's head has no weights of its own: they are the embeddings' (tie_word_embeddings)",
                    "remove it, or set embeddings");
}

}  // namespace mixtune
