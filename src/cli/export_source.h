// ExportSource: a model that a command writes anew, and how.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <CLI/App.hpp>

#include "checkpoint/model_folder.h"
#include "cli/arguments.h"
#include "model/mixtral_config.h"
#include "state/state.h"

namespace mixtune {

// The flags of such a command.
class ExportFlags {
 public:
  explicit ExportFlags(CLI::App& app);

  std::optional<DType> dtype() const;
  uint64_t max_shard_size() const;  // throws UserError

 private:
  std::shared_ptr<std::string> dtype_;
  KeyFlags keys_;
};

struct ExportSource {
  // Reads what the model of `checkpoint` (or of a run's folder) has, but no weights, to be written to `out`, which must
  // not lie in it. Throws UserError.
  ExportSource(const std::string& checkpoint, const std::string& out, const ExportFlags& flags);

  std::string folder;
  ModelFolder model;
  MixtralConfig shape;
  State layout;  // its tensors whole, without memory
  SaveOptions options;
};

// Throws UserError where the new folder `out` would lie in `folder`.
void check_outside(const std::string& out, const std::string& folder);

}  // namespace mixtune
