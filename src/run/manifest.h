// Manifest: what a training checkpoint says of itself, in its manifest.json. A field that an older version did not
// write has its default; a newer format is refused.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace mixtune {

struct StoredFile {
  uint64_t size = 0;
  std::string xxh3;                                 // of its bytes: 16 hexadecimal digits
  std::map<std::string, std::string> tensors = {};  // each one's, of a safetensors file whose header is sound

  bool operator==(const StoredFile&) const = default;
};

struct Manifest {
  static constexpr int64_t kFormat = 1;

  int64_t format = kFormat;
  std::string mixtune = {};                          // the version that wrote it
  int64_t step = 0;                                  // the last one that was done
  std::map<std::string, std::string> contract = {};  // what must be the same, by its name (run/contract.h)
  std::map<std::string, StoredFile> files = {};      // all others of the checkpoint, by their path in it

  bool operator==(const Manifest&) const = default;
};

constexpr const char* kManifestFile = "manifest.json";

std::string format_manifest(const Manifest& manifest);
// `where` names it in messages. Throws UserError where it is none, or of a newer format.
Manifest parse_manifest(const std::string& text, const std::string& where);

// Whether the folder is a checkpoint that a run can go on from. Reads nothing in it.
bool has_manifest(const std::string& checkpoint);
// Throws UserError where there is none, or it is of another step than the folder's name says. Reads nothing else.
Manifest read_manifest_alone(const std::string& checkpoint);
// Throws UserError also where a file is missing or of another size than it says.
Manifest read_manifest(const std::string& checkpoint);

// The size and digests of a file, read once; `advanced`, if any, is called every 16 MiB. Throws as InputFile does, and
// Error where it changes meanwhile.
StoredFile digest_file(const std::string& path, const std::function<void()>& advanced = {});
// The files below a folder, by their path in it.
std::vector<std::string> files_below(const std::string& folder);

}  // namespace mixtune
