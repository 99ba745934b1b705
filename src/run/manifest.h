// Manifest: what a training checkpoint says of itself, in its manifest.json. A field that an older version did not
// write has its default; a newer format is refused.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/stored_file.h"

namespace mixtune {

// The metrics of an evaluation by their names, those that are finite.
using Evaluation = std::map<std::string, double>;

// How a run's evaluations have gone.
struct Improvement {
  std::string metric = {};  // that they were judged by
  std::optional<double> best = {};
  int64_t evaluations_since = 0;  // the last improvement

  bool operator==(const Improvement&) const = default;
};

// The steps of a run that changed nothing, as their numbers were not finite.
struct SkippedSteps {
  int64_t count = 0, in_a_row = 0;  // of the whole run; the last ones

  bool operator==(const SkippedSteps&) const = default;
};

struct Manifest {
  static constexpr int64_t kFormat = 1;

  int64_t format = kFormat;
  std::string mixtune = {};                          // the version that wrote it
  int64_t step = 0;                                  // the last one that was done
  std::map<std::string, std::string> contract = {};  // what must be the same, by its name (run/contract.h)
  Evaluation evaluation = {};                        // of its very step; empty: there was none
  Improvement improvement = {};
  SkippedSteps skipped = {};
  StoredFiles files = {};  // all others of the checkpoint, by their path in it

  bool operator==(const Manifest&) const = default;
};

constexpr const char* kManifestFile = "manifest.json";

nlohmann::json describe_files(const StoredFiles& files);
StoredFiles parse_files(const nlohmann::json& files);  // throws nlohmann::json::exception where they are none

std::string format_manifest(const Manifest& manifest);
// `where` names it in messages. Throws UserError where it is none, or of a newer format.
Manifest parse_manifest(const std::string& text, const std::string& where);

// Whether the folder is a checkpoint that a run can go on from. Reads nothing in it.
bool has_manifest(const std::string& checkpoint);
// Throws UserError where there is none, or it is of another step than the folder's name says. Reads nothing else.
Manifest read_manifest_alone(const std::string& checkpoint);
// Throws UserError also where a file is missing or of another size than it says, or has other bytes; safetensors files
// are not read for that.
Manifest read_manifest(const std::string& checkpoint);

// The files below a folder, by their path in it.
std::vector<std::string> files_below(const std::string& folder);

}  // namespace mixtune
