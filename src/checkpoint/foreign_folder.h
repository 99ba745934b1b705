// Folders that users take for a model's: an adapter, weights in another program's format, the cache of the hub.
#pragma once

#include <optional>
#include <string>

namespace mixtune {

struct Foreign {
  std::string what, mend;  // as UserError takes them: "holds a PEFT adapter, not a model", "merge it ..."
};

// What a folder that lacks config.json or weights is, where that is known. Throws UserError where it is an adapter's
// whose adapter_config.json cannot be read.
std::optional<Foreign> foreign_folder(const std::string& folder);

}  // namespace mixtune
