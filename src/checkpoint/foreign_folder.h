// Foreign folders: those that users mistake for a model's: an adapter, weights in another format, the hub's cache.
#pragma once

#include <optional>
#include <string>

namespace mixtune {

struct Foreign {
  std::string what, mend;  // as UserError takes them: "holds a PEFT adapter, not a model", "merge it ..."
};

// Says what a folder without config.json or weights is, where that is known. Throws UserError where it is an adapter's
// whose adapter_config.json cannot be read.
std::optional<Foreign> foreign_folder(const std::string& folder);

}  // namespace mixtune
