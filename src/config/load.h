// Reads a Config: a flat YAML mapping of the keys of keys.h, overridden by the command line.
#pragma once

#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/config.h"

namespace mixtune {

using Overrides = std::vector<std::pair<std::string, std::string>>;  // key, value; a list's key once for each item

// What something else than the config file and flags says of a key; both go before it.
struct OtherSetting {
  std::string key, value, where;
};

// Reads `path` (if any), then applies `overrides`. Everything that can be told from the settings alone is checked.
// Throws UserError naming file:line or --key.
Config load_config(const std::optional<std::string>& path, const Overrides& overrides,
                   std::span<const OtherSetting> others = {});

// Throws UserError where the file of this name cannot be one of keys, as it holds data or weights.
void check_config_name(std::string_view path);

// Reads the text of a config file; `where` names it in messages.
Config parse_config(std::string_view text, std::string_view where, const Overrides& overrides = {},
                    std::span<const OtherSetting> others = {});

// gradient_accumulation_steps from global_batch_size, where that is given. Throws UserError where no number of them
// makes it, with the arithmetic.
void resolve_global_batch_size(Config& config, int64_t ranks);

// All keys, as a YAML file that reads back as the same config.
std::string print_config(const Config& config);

// Throws UserError for the first of `names` that is not set.
void require_keys(const Config& config, std::initializer_list<std::string_view> names);

}  // namespace mixtune
