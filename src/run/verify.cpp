#include "run/verify.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/contained.h"
#include "base/log.h"
#include "run/manifest.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

constexpr const char* kGetCopy = "get the file from a copy of the checkpoint, or use another checkpoint";
constexpr size_t kMostTensors = 20;  // that are named of one file

// What of a file whose digest differs is not as it was. Its header is where it no longer names the same tensors, or
// where all of them are as they were.
void add_faults(const std::string& where, const StoredFile& now, const StoredFile& was,
                std::vector<UserError>& faults) {
  if (was.tensors.empty()) {
    faults.emplace_back(where, changed_bytes(now.xxh3, was.xxh3), kGetCopy);
    return;
  }
  size_t missing = 0, bad = 0;
  for (const auto& [name, digest] : was.tensors) {
    const auto found = now.tensors.find(name);
    if (found == now.tensors.end()) ++missing;
    if (found == now.tensors.end() || found->second == digest || ++bad > kMostTensors) continue;
    faults.emplace_back(where, changed_tensor(name, found->second, digest), kGetCopy);
  }
  if (bad > kMostTensors)
    faults.emplace_back(where, fmt::format("{} more tensors are not as they were written", bad - kMostTensors),
                        kGetCopy);
  if (missing > 0 || bad == 0 || now.tensors.size() != was.tensors.size())
    faults.emplace_back(where, "its header is not the one that was written", kGetCopy);
}

void verify_file(const std::string& checkpoint, const std::string& name, const StoredFile& was,
                 const BytesDone& progress, Verification& result) {
  const std::string where = printable_path(checkpoint + "/" + name);
  std::error_code error;
  const uintmax_t size = fs::file_size(checkpoint + "/" + name, error);
  if (error) {
    result.faults.emplace_back(where, "is missing", kGetCopy);
    return;
  }
  if (size != was.size) {
    result.faults.emplace_back(where, fmt::format("has {} bytes, {} were written", size, was.size), kGetCopy);
    return;
  }
  const StoredFile now = digest_file(path_within(checkpoint, name), progress);
  result.bytes += now.size;
  if (now.xxh3 != was.xxh3) add_faults(where, now, was, result.faults);
}

void warn_of_others(const std::string& checkpoint, const Manifest& manifest) {
  for (const std::string& name : files_below(checkpoint))
    if (name != kManifestFile && !manifest.files.contains(name))
      log_warning("{}: {} was not written with the checkpoint", printable_path(checkpoint), printable_path(name));
}

}  // namespace

Verification verify_checkpoint(const std::string& checkpoint, const BytesDone& progress) {
  if (!has_manifest(checkpoint))
    throw UserError(printable_path(checkpoint),
                    fmt::format("has no {}, and so no digests to hold its files against: it is a model's folder, or "
                                "was saved with save_only_model",
                                kManifestFile),
                    "give a checkpoint-N folder that a run can go on from");
  const Manifest manifest = read_manifest_alone(checkpoint);
  Verification result{.files = manifest.files.size(), .faults = {}};
  uint64_t all = 0;
  for (const auto& [name, file] : manifest.files) all += file.size;
  const auto of_a_file = [&](uint64_t done, uint64_t) {
    if (progress) progress(result.bytes + done, all);
  };
  for (const auto& [name, file] : manifest.files) {
    try {
      verify_file(checkpoint, name, file, of_a_file, result);
    } catch (const Error& unreadable) {
      result.faults.emplace_back("", unreadable.what(), "");
    }
  }
  warn_of_others(checkpoint, manifest);
  return result;
}

}  // namespace mixtune
