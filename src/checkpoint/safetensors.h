// The safetensors format: 8 bytes of little-endian header length, a JSON header, then the tensors without holes.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/file.h"
#include "base/output_file.h"
#include "checkpoint/file_stamp.h"
#include "tensor/tensor.h"

namespace mixtune {

struct StoredTensor {
  std::string dtype_text;      // as the file spells it: "BF16"
  std::optional<DType> dtype;  // none: a type mixtune does not read
  Shape shape;
  uint64_t begin = 0, end = 0;  // bytes, from the start of the file

  uint64_t bytes() const { return end - begin; }
};

using StoredTensors = std::map<std::string, StoredTensor, std::less<>>;

// The tensors of a file whose whole content is `file`. Nothing in it is trusted: throws UserError unless the tensors
// lie in the file without overlap or hole and have the sizes that their types and shapes ask for.
StoredTensors parse_safetensors(std::string_view file, const std::string& where);

class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const MappedFile& mapped() const { return file_; }
  const FileStamp& stamp() const { return stamp_; }  // when it was opened
  const StoredTensors& tensors() const { return tensors_; }
  const StoredTensor* find(std::string_view name) const;  // null: no such tensor
  std::span<const std::byte> bytes(const StoredTensor& tensor) const { return bytes(tensor.begin, tensor.bytes()); }
  std::span<const std::byte> bytes(uint64_t begin, uint64_t size) const {
    return std::as_bytes(std::span(file_.bytes())).subspan(begin, size);
  }
  void release(std::span<const std::byte> part) const { file_.release(part); }

 private:
  FileStamp stamp_;
  MappedFile file_;
  StoredTensors tensors_;
};

struct TensorEntry {
  std::string name;
  DType dtype;
  Shape shape;

  uint64_t bytes() const { return static_cast<uint64_t>(shape.elements()) * dtype_size(dtype); }
};

// Writes a file as the reference library does. The header comes first, so all entries are known at the start; their
// bytes follow in the same order.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::string& path, std::span<const TensorEntry> entries);
  void write(std::span<const std::byte> bytes);
  void finish();  // on the disk when it returns

 private:
  OutputFile file_;
  uint64_t missing_ = 0;
};

}  // namespace mixtune
