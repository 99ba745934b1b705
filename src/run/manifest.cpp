#include "run/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "base/contained.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/json_number.h"
#include "checkpoint/run_folder.h"
#include "checkpoint/training_state.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

StoredFile parse_file(const json& file) {
  StoredFile stored = {static_cast<uint64_t>(whole_number(file.at("size"))), file.at("xxh3").get<std::string>()};
  stored.tensors = file.value("tensors", stored.tensors);
  return stored;
}

json describe_file(const StoredFile& file) {
  json description = {{"size", file.size}, {"xxh3", file.xxh3}};
  if (!file.tensors.empty()) description["tensors"] = file.tensors;
  return description;
}

// A number that counts nothing good is 0.
int64_t count_of(const json& object, const char* name) {
  return std::max<int64_t>(0, whole_number(object.value(name, json(0u))));
}

SkippedSteps parse_skipped(const json& skipped) {
  return {.count = count_of(skipped, "count"), .in_a_row = count_of(skipped, "in_a_row")};
}

json describe_improvement(const Improvement& improvement) {
  json description = {{"metric", improvement.metric}, {"evaluations_since", improvement.evaluations_since}};
  if (improvement.best) description["best"] = *improvement.best;
  return description;
}

Improvement parse_improvement(const json& improvement) {
  Improvement parsed = {.metric = improvement.value("metric", ""),
                        .evaluations_since = count_of(improvement, "evaluations_since")};
  if (improvement.contains("best")) parsed.best = improvement.at("best").get<double>();
  return parsed;
}

// Whether a path leads to a file below the folder that it starts in.
bool is_below(const std::string& name) {
  const fs::path path = name;
  return !name.empty() && name.find('\0') == name.npos && path.is_relative() && path.lexically_normal() == path &&
         *path.begin() != "..";
}

// Large files are held against their digests where they are read (checkpoint/written_digests.h).
void check_file(const std::string& checkpoint, const std::string& name, const StoredFile& was) {
  std::error_code error;
  const std::string where = printable_path(checkpoint + "/" + name);
  const uintmax_t size = fs::file_size(checkpoint + "/" + name, error);
  if (error) throw UserError(where, "is missing", kResumeOther);
  if (size != was.size)
    throw UserError(where, fmt::format("has {} bytes, {} were written", size, was.size), kResumeOther);
  if (name.ends_with(".safetensors")) return;
  if (const StoredFile now = digest_file(path_within(checkpoint, name, kResumeOther)); now.xxh3 != was.xxh3)
    throw UserError(where, changed_bytes(now.xxh3, was.xxh3), kResumeOther);
}

}  // namespace

json describe_files(const StoredFiles& files) {
  json described = json::object();
  for (const auto& [name, file] : files) described[name] = describe_file(file);
  return described;
}

StoredFiles parse_files(const json& files) {
  StoredFiles parsed;
  for (const auto& [name, file] : files.get_ref<const json::object_t&>()) parsed[name] = parse_file(file);
  return parsed;
}

std::string format_manifest(const Manifest& manifest) {
  const nlohmann::ordered_json text = {
      {"format", manifest.format},
      {"mixtune", manifest.mixtune},
      {"step", manifest.step},
      {"contract", manifest.contract},
      {"evaluation", manifest.evaluation},
      {"improvement", describe_improvement(manifest.improvement)},
      {"skipped_steps", {{"count", manifest.skipped.count}, {"in_a_row", manifest.skipped.in_a_row}}},
      {"files", describe_files(manifest.files)}};
  return text.dump(2) + "\n";
}

Manifest parse_manifest(const std::string& text, const std::string& where) {
  const json object = parse_json_object(text, where, kResumeOther, 5);
  Manifest manifest;
  try {
    manifest.format = whole_number(object.at("format"));
    if (manifest.format > Manifest::kFormat)
      throw UserError(where,
                      fmt::format("is of format {}, newer than this version's {}", manifest.format, Manifest::kFormat),
                      "resume with the version of mixtune that wrote it");
    manifest.step = whole_number(object.at("step"));
    manifest.mixtune = object.value("mixtune", manifest.mixtune);
    manifest.contract = object.value("contract", manifest.contract);
    manifest.evaluation = object.value("evaluation", manifest.evaluation);
    manifest.improvement = parse_improvement(object.value("improvement", json::object()));
    manifest.skipped = parse_skipped(object.value("skipped_steps", json::object()));
    manifest.files = parse_files(object.at("files"));
  } catch (const json::exception&) {
    throw UserError(where, "is not the manifest of a training checkpoint", kResumeOther);
  }
  for (const auto& [name, file] : manifest.files)
    if (!is_below(name))
      throw UserError(where, fmt::format("names a file '{}' outside its folder", printable(name)), kResumeOther);
  if (manifest.format < 0) throw UserError(where, "names no format", kResumeOther);
  if (manifest.step < 1) throw UserError(where, "names no step of a run", kResumeOther);
  return manifest;
}

bool has_manifest(const std::string& checkpoint) {
  std::error_code error;
  return fs::is_regular_file(checkpoint + "/" + kManifestFile, error);
}

Manifest read_manifest_alone(const std::string& checkpoint) {
  constexpr size_t kMost = size_t{64} << 20;
  std::error_code missing;
  if (!fs::is_directory(checkpoint, missing))
    throw UserError(printable_path(checkpoint), "is no checkpoint: there is no such folder",
                    "give a checkpoint-N folder, a run's folder, or auto");
  if (!has_manifest(checkpoint))
    throw UserError(printable_path(checkpoint),
                    fmt::format("has no {}: it holds a model, no training to go on with", kManifestFile),
                    "give a checkpoint saved without save_only_model, or start from it: model_name_or_path");
  const std::string path = path_within(checkpoint, kManifestFile, kResumeOther);
  Manifest manifest = parse_manifest(read_small_file(path, kMost, kResumeOther), printable_path(path));
  const std::optional<int64_t> named = checkpoint_step(fs::path(checkpoint).filename().string());
  if (named && *named != manifest.step)
    throw UserError(printable_path(path), fmt::format("is of step {}, not of its folder's", manifest.step),
                    "give the folder back its name");
  return manifest;
}

Manifest read_manifest(const std::string& checkpoint) {
  Manifest manifest = read_manifest_alone(checkpoint);
  for (const auto& [name, file] : manifest.files) check_file(checkpoint, name, file);
  return manifest;
}

std::vector<std::string> files_below(const std::string& folder) {
  std::vector<std::string> files;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder))
    if (!entry.is_directory()) files.push_back(entry.path().lexically_relative(folder).string());
  std::ranges::sort(files);
  return files;
}

}  // namespace mixtune
