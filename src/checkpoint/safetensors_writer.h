// Writes safetensors files, with the digests that a manifest asks for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/output_file.h"
#include "base/xxh3.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/stored_file.h"

namespace mixtune {

// Writes a file as the reference library does. The header comes first, so all entries are known at the start. Their
// bytes follow in the same order.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::string& path, std::span<const TensorEntry> entries);
  // Writes bytes of tensor `entry` from its byte `begin` on: each once, in any order.
  void write(size_t entry, uint64_t begin, std::span<const std::byte> bytes);
  uint64_t missing() const { return missing_; }  // bytes not written yet
  // The file is on the disk when it returns. Where its bytes did not come in order, it is read for its digests.
  StoredFile finish();

 private:
  void add_in_order(uint64_t place, std::span<const std::byte> bytes);
  void end_tensors(uint64_t place);

  OutputFile file_;
  std::vector<std::string> names_;
  std::vector<uint64_t> begins_;  // each tensor's in the file, and the end of the last
  uint64_t missing_ = 0;
  // Of all bytes up to `next_`, and of those of the tensor that they end in: while they come in order.
  bool in_order_ = true;
  uint64_t next_ = 0;
  Xxh3 whole_, tensor_;
  StoredFile stored_;
};

}  // namespace mixtune
