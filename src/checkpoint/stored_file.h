// StoredFile: what a checkpoint's manifest has of a file, so that damage is found.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "base/progress_line.h"

namespace mixtune {

struct StoredFile {
  uint64_t size = 0;
  std::string xxh3 = {};                            // of its bytes: 16 hexadecimal digits
  std::map<std::string, std::string> tensors = {};  // each one's, of a safetensors file whose header is sound

  bool operator==(const StoredFile&) const = default;
};

// By their path in the checkpoint.
using StoredFiles = std::map<std::string, StoredFile>;

// Of a file with this content, which is no safetensors file.
StoredFile stored_file(std::string_view content);

// What is wrong with bytes, or with those of a tensor, whose digest is another: "its bytes are not those that were
// written (XXH3 c114167d8ce35fbd, was 19dede72f68de963)".
std::string changed_bytes(const std::string& now, const std::string& was);
std::string changed_tensor(const std::string& name, const std::string& now, const std::string& was);

// The size and digests of a file, read once; `progress`, if any, is told how far it is. Throws as InputFile does, and
// Error where it changes meanwhile.
StoredFile digest_file(const std::string& path, const BytesDone& progress = {});

}  // namespace mixtune
