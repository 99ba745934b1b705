// WrittenDigests: holds tensors that are read against the digests that were taken when they were written.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/xxh3.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/stored_file.h"

namespace mixtune {

// Is told what a rank reads of safetensors files, each file's bytes in their order. A tensor whose first byte is told
// is digested to its end; what of it is not told, as other ranks read it, is read here. So ranks that together read
// every byte hold every tensor against its digest, once; and one that is read as it was written is read no second time.
class WrittenDigests {
 public:
  // `written`, by the files' paths in `folder`, outlives this. A tensor that it does not name is not checked.
  WrittenDigests(std::string folder, const StoredFiles& written);

  // `bytes` are those of `file` from `begin` on. Throws UserError where a tensor that ends in them is not as it was
  // written; Error where its file cannot be read or has changed since it was opened.
  void add(const SafetensorsFile& file, uint64_t begin, std::span<const std::byte> bytes);
  // Nothing more is told. Throws as add does.
  void finish();

 private:
  void open(const SafetensorsFile& file);
  void read_rest();
  void check();

  const std::string folder_;
  const StoredFiles& written_;
  const SafetensorsFile* file_ = nullptr;
  const StoredFile* digests_ = nullptr;                  // of file_; null: it has none
  std::vector<const StoredTensors::value_type*> order_;  // its tensors that have digests, by their places
  size_t next_ = 0;
  bool under_way_ = false;  // whether the next one has begun, and goes on at byte end_ of the file
  uint64_t end_ = 0;
  Xxh3 digest_;
};

}  // namespace mixtune
