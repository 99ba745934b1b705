#include "run/manifest.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "base/contained.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/json_number.h"
#include "checkpoint/read_in_turn.h"
#include "checkpoint/run_folder.h"
#include "checkpoint/safetensors.h"
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

// Whether a path leads to a file below the folder that it starts in.
bool is_below(const std::string& name) {
  const fs::path path = name;
  return !name.empty() && name.find('\0') == name.npos && path.is_relative() && path.lexically_normal() == path &&
         *path.begin() != "..";
}

class Xxh3 {
 public:
  Xxh3() : state_(XXH3_createState(), XXH3_freeState) { MT_CHECK(state_ && XXH3_64bits_reset(state_.get()) == XXH_OK); }

  void add(std::span<const std::byte> bytes) { XXH3_64bits_update(state_.get(), bytes.data(), bytes.size()); }
  // The digest of what was added; what comes is of another one.
  std::string take() {
    const XXH64_hash_t digest = XXH3_64bits_digest(state_.get());
    XXH3_64bits_reset(state_.get());
    return fmt::format("{:016x}", digest);
  }

 private:
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state_;
};

// The digests of a file's tensors, by its bytes in turn.
class TensorDigests {
 public:
  explicit TensorDigests(const StoredTensors& tensors) {
    for (const auto& tensor : tensors) order_.push_back(&tensor);
    std::ranges::sort(order_, {}, [](const auto* item) { return std::pair(item->second.begin, item->second.end); });
  }

  // `bytes` are those of the file from `begin` on.
  void add(uint64_t begin, std::span<const std::byte> bytes) {
    const uint64_t end = begin + bytes.size();
    for (; next_ < order_.size() && order_[next_]->second.begin < end; ++next_) {
      const StoredTensor& tensor = order_[next_]->second;
      const uint64_t from = std::max(begin, tensor.begin), to = std::min(end, tensor.end);
      digest_.add(bytes.subspan(from - begin, to - from));
      if (tensor.end > end) return;
      digests_[order_[next_]->first] = digest_.take();
    }
  }

  std::map<std::string, std::string> take() {
    for (; next_ < order_.size(); ++next_) digests_[order_[next_]->first] = digest_.take();  // empty ones at the end
    return std::move(digests_);
  }

 private:
  std::vector<const StoredTensors::value_type*> order_;
  size_t next_ = 0;
  Xxh3 digest_;
  std::map<std::string, std::string> digests_;
};

// None where it is no safetensors file, whatever its name says.
StoredTensors tensors_of(const std::string& path) {
  if (!path.ends_with(".safetensors")) return {};
  try {
    return SafetensorsFile(path).tensors();
  } catch (const UserError&) {
    return {};
  }
}

StoredFile digest(const InputFile& file, const StoredTensors& tensors, const std::function<void()>& advanced) {
  std::vector<FileStretch> stretches;
  for (uint64_t begin = 0; begin < file.size(); begin = stretches.back().end)
    stretches.push_back({&file, begin, std::min(begin + kMostInTurn, file.size())});
  Xxh3 whole;
  TensorDigests each(tensors);
  read_in_turn(stretches, [&](size_t i, std::span<const std::byte> bytes) {
    whole.add(bytes);
    each.add(stretches[i].begin, bytes);
    if (advanced) advanced();
  });
  return {file.size(), whole.take(), each.take()};
}

}  // namespace

std::string format_manifest(const Manifest& manifest) {
  json files = json::object();
  for (const auto& [name, file] : manifest.files) files[name] = describe_file(file);
  const nlohmann::ordered_json text = {{"format", manifest.format},
                                       {"mixtune", manifest.mixtune},
                                       {"step", manifest.step},
                                       {"contract", manifest.contract},
                                       {"files", files}};
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
    for (const auto& [name, file] : object.at("files").get_ref<const json::object_t&>()) {
      if (!is_below(name))
        throw UserError(where, fmt::format("names a file '{}' outside its folder", printable(name)), kResumeOther);
      manifest.files[name] = parse_file(file);
    }
  } catch (const json::exception&) {
    throw UserError(where, "is not the manifest of a training checkpoint", kResumeOther);
  }
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
  for (const auto& [name, file] : manifest.files) {
    std::error_code error;
    const std::string whole = checkpoint + "/" + name;
    const uintmax_t size = fs::file_size(whole, error);
    if (error) throw UserError(printable_path(whole), "is missing", kResumeOther);
    if (size != file.size)
      throw UserError(printable_path(whole), fmt::format("has {} bytes, {} were written", size, file.size),
                      kResumeOther);
  }
  return manifest;
}

StoredFile digest_file(const std::string& path, const std::function<void()>& advanced) {
  const InputFile file(path);
  return digest(file, tensors_of(path), advanced);
}

std::vector<std::string> files_below(const std::string& folder) {
  std::vector<std::string> files;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder))
    if (!entry.is_directory()) files.push_back(entry.path().lexically_relative(folder).string());
  std::ranges::sort(files);
  return files;
}

}  // namespace mixtune
