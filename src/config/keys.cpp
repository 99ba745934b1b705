#include "config/keys.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/suggest.h"
#include "config/foreign.h"
#include "config/key_table.h"

namespace mixtune {

std::span<const Key> keys() {
  static const std::vector<Key> table = make_key_table();
  return table;
}

const Key* find_key(std::string_view name) {
  const auto key = std::ranges::find_if(
      keys(), [&](const Key& each) { return each.name == name || (!each.alias.empty() && each.alias == name); });
  return key == keys().end() ? nullptr : &*key;
}

bool is_changed(const Config& config, std::string_view name) {
  const Key* key = find_key(name);
  return key->get(config) != key->get(Config());
}

std::vector<std::string> key_names() {
  std::vector<std::string> names;
  for (const Key& key : keys()) {
    names.emplace_back(key.name);
    if (!key.alias.empty()) names.emplace_back(key.alias);
  }
  return names;
}

UserError unknown_key(std::string_view where, std::string_view name, std::string_view more) {
  const ForeignKey* foreign = find_foreign_key(name);
  const std::string near = foreign ? "" : nearest_name(name.substr(0, 100), key_names());
  const std::string mend = foreign        ? hint(*foreign)
                           : near.empty() ? "'mixtune train --help' lists the keys"
                                          : fmt::format("did you mean '{}'?", near);
  return {where, fmt::format("unknown key '{}'", printable(name)), fmt::format("{}{}", mend, more)};
}

void throw_unknown(std::string_view where, const std::vector<UserError>& errors) {
  constexpr size_t kMost = 50;
  std::string lines;
  for (size_t i = 0; i < std::min(errors.size(), kMost); ++i) lines += fmt::format("{}\n", errors[i].what());
  lines.pop_back();
  if (errors.size() > 1)
    lines += fmt::format("\n{}: {} of these; docs/coming-from.md says what other trainers' keys are called here", where,
                         errors.size());
  throw UserError("", lines, "");
}

}  // namespace mixtune
