// The safetensors format: 8 bytes of little-endian header length, a JSON header, then the tensors without holes.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/output_file.h"
#include "base/xxh3.h"
#include "checkpoint/stored_file.h"
#include "tensor/tensor.h"

namespace mixtune {

struct StoredTensor {
  std::string dtype_text;      // as the file spells it: "BF16"
  std::optional<DType> dtype;  // none: mixtune does not read the type
  Shape shape;
  uint64_t begin = 0, end = 0;  // bytes, from the start of the file

  uint64_t bytes() const { return end - begin; }
};

using StoredTensors = std::map<std::string, StoredTensor, std::less<>>;

// Parses the tensors of a file of `size` bytes that begins with `head`: all of it, or at least its length and its
// header. Nothing in it is trusted: throws UserError unless the tensors lie in the file without overlap or hole and
// have the sizes that their types and shapes ask for.
StoredTensors parse_safetensors(std::string_view head, uint64_t size, const std::string& where);

// A file whose header is read once, when it is opened.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const InputFile& file() const { return file_; }
  const StoredTensors& tensors() const { return tensors_; }
  const StoredTensor* find(std::string_view name) const;  // null: no such tensor

 private:
  InputFile file_;
  StoredTensors tensors_;
};

struct TensorEntry {
  std::string name;
  DType dtype;
  Shape shape;

  uint64_t bytes() const { return static_cast<uint64_t>(shape.elements()) * dtype_size(dtype); }
};

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
