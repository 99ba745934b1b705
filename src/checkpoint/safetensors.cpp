#include "checkpoint/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace mixtune {

namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are read as they are");

constexpr uint64_t kMaxHeader = 100'000'000;  // the reference library's own bound
constexpr const char* kGetAgain = "the file is damaged or not fully downloaded: get it again";

struct FileType {
  std::string_view text;
  uint64_t size;
  std::optional<DType> dtype;
};

constexpr std::array kFileTypes = std::to_array<FileType>({
    {"F64", 8, DType::kF64},
    {"F32", 4, DType::kF32},
    {"BF16", 2, DType::kBF16},
    {"F16", 2, DType::kF16},
    {"I64", 8, DType::kI64},
    {"I32", 4, DType::kI32},
    {"U8", 1, DType::kU8},
    {"BOOL", 1, std::nullopt},
    {"I8", 1, std::nullopt},
    {"F8_E5M2", 1, std::nullopt},
    {"F8_E4M3", 1, std::nullopt},
    {"F8_E8M0", 1, std::nullopt},
    {"I16", 2, std::nullopt},
    {"U16", 2, std::nullopt},
    {"U32", 4, std::nullopt},
    {"U64", 8, std::nullopt},
    {"C64", 8, std::nullopt},
});

const FileType* file_type(std::string_view text) {
  const auto found = std::ranges::find(kFileTypes, text, &FileType::text);
  return found == kFileTypes.end() ? nullptr : &*found;
}

// Collects the header's entries; offsets stay relative to the start of the tensors' bytes.
class HeaderVisitor : public JsonVisitor {
 public:
  HeaderVisitor(const std::string& where, StoredTensors& tensors) : where_(where), tensors_(tensors) {}

  void open(const JsonPath& path, Container container) override {
    const bool object = container == Container::kObject;
    if (path.empty() && object) return;
    if (path.size() == 1 && object) {
      metadata_ = path[0] == "__metadata__";
      entry_ = {};
      return;
    }
    const bool list = path.size() == 2 && !object && !metadata_;
    if (!list || (path[1] != "shape" && path[1] != "data_offsets")) malformed(path);
  }

  void scalar(const JsonPath& path, bool in_array, JsonScalar& value) override {
    if (path.size() != 2) malformed(path);
    const auto* text = std::get_if<std::string>(&value);
    if (!in_array) {
      if (text == nullptr || (!metadata_ && path[1] != "dtype")) malformed(path);
      if (!metadata_) entry_.dtype = *text;
      return;
    }
    const auto* number = std::get_if<uint64_t>(&value);
    if (number == nullptr) malformed(path);
    auto& list = path[1] == "shape" ? entry_.shape : entry_.offsets;
    if (list.size() == Shape::kMaxRank)
      throw UserError(where_,
                      fmt::format("tensor '{}' has more than {} dimensions", printable(path[0]), Shape::kMaxRank),
                      "a Mixtral checkpoint has none such: check that it is the right file");
    list.push_back(*number);
  }

  void close(const JsonPath& path, Container container) override {
    if (path.size() == 2) (path[1] == "shape" ? entry_.has_shape : entry_.has_offsets) = true;
    if (path.size() != 1 || container != Container::kObject || metadata_) return;
    if (!entry_.dtype || !entry_.has_shape || !entry_.has_offsets || entry_.offsets.size() != 2) malformed(path);
    tensors_.emplace(path[0], tensor(path[0]));
  }

 private:
  struct Entry {
    std::optional<std::string> dtype;
    std::vector<uint64_t> shape, offsets;
    bool has_shape = false, has_offsets = false;
  };

  [[noreturn]] void malformed(const JsonPath& path) const {
    if (path.empty()) throw UserError(where_, "the header is not a JSON object", kGetAgain);
    throw UserError(where_, fmt::format("the header's entry '{}' is malformed", printable(path[0])), kGetAgain);
  }

  StoredTensor tensor(const std::string& name) const {
    StoredTensor result;
    const FileType* type = file_type(*entry_.dtype);
    result.dtype_text = *entry_.dtype;
    result.begin = entry_.offsets[0];
    result.end = entry_.offsets[1];
    std::array<int64_t, Shape::kMaxRank> dims{};
    uint64_t bytes = type == nullptr ? 1 : type->size;
    bool fits = true;
    for (size_t i = 0; i < entry_.shape.size(); ++i) {
      dims[i] = static_cast<int64_t>(entry_.shape[i]);
      fits &= !__builtin_mul_overflow(bytes, entry_.shape[i], &bytes) && std::in_range<int64_t>(entry_.shape[i]);
    }
    if (!fits || !std::in_range<int64_t>(bytes))
      throw UserError(where_, fmt::format("tensor '{}' has an impossible shape", printable(name)), kGetAgain);
    result.shape = Shape(dims.data(), static_cast<int>(entry_.shape.size()));
    constexpr uint64_t kMostInAByte = 8;  // elements of a type that is not known
    if (type == nullptr && result.begin <= result.end && bytes / kMostInAByte > result.end - result.begin)
      throw UserError(where_, fmt::format("tensor '{}' has an impossible shape", printable(name)), kGetAgain);
    if (type != nullptr) {
      result.dtype = type->dtype;
      if (result.end < result.begin || result.end - result.begin != bytes)
        throw UserError(where_,
                        fmt::format("tensor '{}' is {} {}, {} bytes, but its offsets are {} and {}", printable(name),
                                    type->text, result.shape.str(), bytes, result.begin, result.end),
                        kGetAgain);
    }
    return result;
  }

  const std::string& where_;
  StoredTensors& tensors_;
  Entry entry_;
  bool metadata_ = false;
};

// Checks that each of the `size` bytes after the header belongs to exactly one tensor.
void check_layout(const StoredTensors& tensors, uint64_t size, const std::string& where) {
  uint64_t next = 0;
  for (const auto* item : by_place(tensors)) {
    const auto& [name, tensor] = *item;
    const auto fail = [&, &name = name](std::string_view what) {
      throw UserError(where, fmt::format("tensor '{}' {}", printable(name), what), kGetAgain);
    };
    if (tensor.end < tensor.begin) fail("ends before it begins");
    if (tensor.end > size) fail(fmt::format("ends at byte {} of {}: the file is too short", tensor.end, size));
    if (tensor.begin < next) fail("overlaps another one");
    if (tensor.begin > next) fail("comes after a hole");
    next = tensor.end;
  }
  if (next != size) throw UserError(where, fmt::format("has {} bytes after its last tensor", size - next), kGetAgain);
}

constexpr size_t kPrefixBytes = 64;  // enough to show what kind of file it is

// The length in `prefix`, the file's first kPrefixBytes or all of a shorter one.
uint64_t header_length(std::string_view prefix, uint64_t size, const std::string& where) {
  if (prefix.starts_with("version https://git-lfs"))
    throw UserError(where, "is a Git LFS pointer, not the weights", "run 'git lfs pull' in its folder");
  uint64_t length = 0;
  if (size < sizeof(length))
    throw UserError(where, fmt::format("is no safetensors file: it has {} bytes", size), kGetAgain);
  std::memcpy(&length, prefix.data(), sizeof(length));
  if (length > kMaxHeader)
    throw UserError(where, fmt::format("is no safetensors file: its header would have {} bytes", length),
                    "check that it is the right file");
  if (length > size - sizeof(length))
    throw UserError(
        where,
        fmt::format("its header should have {} bytes, but the file ends after {}", length, size - sizeof(length)),
        kGetAgain);
  return length;
}

// The start of the file: the length of the header, and the header.
std::string read_head(const InputFile& file) {
  const std::string prefix = file.read(0, std::min<uint64_t>(kPrefixBytes, file.size()));
  return file.read(0, sizeof(uint64_t) + header_length(prefix, file.size(), printable_path(file.path())));
}

}  // namespace

std::vector<const StoredTensors::value_type*> by_place(const StoredTensors& tensors) {
  std::vector<const StoredTensors::value_type*> order;
  for (const auto& item : tensors) order.push_back(&item);
  std::ranges::sort(order, {}, [](const auto* item) { return std::pair(item->second.begin, item->second.end); });
  return order;
}

std::string_view file_type_text(DType dtype) {
  return std::ranges::find(kFileTypes, std::optional(dtype), &FileType::dtype)->text;
}

StoredTensors parse_safetensors(std::string_view head, uint64_t size, const std::string& where) {
  const uint64_t length = header_length(head.substr(0, kPrefixBytes), size, where);
  const uint64_t start = sizeof(length) + length;
  MT_CHECK(head.size() >= start);
  StoredTensors tensors;
  HeaderVisitor visitor(where, tensors);
  read_json(head.substr(sizeof(length), length), where, kGetAgain, 3, visitor);
  check_layout(tensors, size - start, where);
  for (auto& [name, tensor] : tensors) {
    tensor.begin += start;
    tensor.end += start;
  }
  return tensors;
}

SafetensorsFile::SafetensorsFile(const std::string& path)
    : file_(path), tensors_(parse_safetensors(read_head(file_), file_.size(), printable_path(path))) {}

const StoredTensor* SafetensorsFile::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

}  // namespace mixtune
