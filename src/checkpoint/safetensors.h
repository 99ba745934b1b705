// The safetensors format: 8 bytes of little-endian header length, a JSON header, then the tensors without holes.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "tensor/tensor.h"

namespace mixtune {

class FourBitTensor;

struct StoredTensor {
  std::string dtype_text;      // as the file spells it: "BF16"
  std::optional<DType> dtype;  // none: mixtune does not read the type
  Shape shape;
  uint64_t begin = 0, end = 0;  // bytes, from the start of the file
  // What the bytes are codes of, and the type and shape are those of (four_bit.h); null: they are as the file has them.
  std::shared_ptr<const FourBitTensor> four_bit = {};

  uint64_t bytes() const { return end - begin; }
};

using StoredTensors = std::map<std::string, StoredTensor, std::less<>>;

// The tensors by their places in the file.
std::vector<const StoredTensors::value_type*> by_place(const StoredTensors& tensors);

// How a file spells a type that mixtune reads.
std::string_view file_type_text(DType dtype);

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
  StoredTensors& tensors() { return tensors_; }
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

}  // namespace mixtune
