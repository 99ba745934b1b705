// The keys of a Mixtral model's config.json.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "base/json_value.h"

namespace mixtune {

// A key that would change the maths with any value but these, which mixtune computes (null is always neutral).
struct FixedConfigKey {
  const char* key;
  std::vector<nlohmann::json> neutral;
};
std::span<const FixedConfigKey> fixed_config_keys();

// Whether it is one of these, is read, or has no part in the maths of training. Any other key draws a warning.
bool is_known_config_key(std::string_view key);

}  // namespace mixtune
