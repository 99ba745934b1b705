#include "checkpoint/four_bit.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "base/error.h"
#include "checkpoint/convert.h"
#include "kernels/four_bit/nf4.h"

namespace mixtune {

namespace {

constexpr std::string_view kStateSuffix = ".quant_state.bitsandbytes__", kNf4 = "nf4";
constexpr const char* kIncomplete = "the checkpoint is damaged or incomplete: get it again";

// A tensor of the files.
struct Part {
  SafetensorsFile* file = nullptr;
  const StoredTensor* tensor = nullptr;
};

Part find_part(std::vector<SafetensorsFile>& files, std::string_view name) {
  for (SafetensorsFile& file : files)
    if (const StoredTensor* tensor = file.find(name)) return {&file, tensor};
  return {};
}

// Joins the parts of one tensor.
class Joiner {
 public:
  // `name` is X's, `state_name` that of its quant_state.
  Joiner(std::vector<SafetensorsFile>& files, std::string name, const std::string& state_name)
      : files_(files), name_(std::move(name)) {
    const Part state = find_part(files, state_name);
    names_.push_back(state_name);
    const std::string where = fmt::format("{}: {}", printable_path(state.file->path()), printable(state_name, 200));
    if (state_name.substr(name_.size() + kStateSuffix.size()) != kNf4)
      throw UserError(where, "is of a tensor in another 4-bit type than NF4", "quantise the model anew, to NF4");
    if (state.tensor->bytes() > kMaxQuantStateBytes)
      throw UserError(where, fmt::format("has {} bytes: too many for a quant_state", state.tensor->bytes()),
                      kIncomplete);
    state_ = parse_quant_state(state.file->file().read(state.tensor->begin, state.tensor->bytes()), where);
  }

  void join() {
    const int64_t n = state_.shape.elements();
    const bool nested = state_.offset.has_value();
    const Part codes = part("", {}, (n + 1) / 2);
    const Part absmax = part(".absmax", nested ? DType::kU8 : DType::kF32, state_.blocks());
    FourBitTensor::Parts parts = {.absmax_file = absmax.file, .absmax_begin = absmax.tensor->begin};
    check_values(floats(".quant_map", std::ssize(kNf4Values)));
    if (nested) {
      parts.nested_absmax = floats(".nested_absmax", (state_.blocks() + kNestedBlock - 1) / kNestedBlock);
      parts.nested_map = floats(".nested_quant_map", std::ssize(dynamic_map()));
    }
    StoredTensor whole = *codes.tensor;
    whole.dtype_text = "NF4";
    whole.dtype = state_.dtype;
    whole.shape = state_.shape;
    for (const std::string& name : names_)
      for (SafetensorsFile& file : files_)
        if (const StoredTensor* beside = file.find(name)) {
          parts.bytes += beside->bytes();
          file.tensors().erase(name);
        }
    whole.four_bit = std::make_shared<FourBitTensor>(state_, std::move(parts));
    codes.file->tensors().find(name_)->second = std::move(whole);
  }

 private:
  // The part with this suffix, of so many elements; without a type, of so many bytes, which any type may stand for.
  Part part(std::string_view suffix, std::optional<DType> dtype, int64_t elements) {
    const std::string name = fmt::format("{}{}", name_, suffix);
    const Part found = find_part(files_, name);
    if (found.file == nullptr)
      throw UserError(printable_path(files_[0].path()), fmt::format("tensor '{}' is missing", printable(name, 200)),
                      kIncomplete);
    const bool right_type = (!dtype || found.tensor->dtype == dtype) && found.tensor->four_bit == nullptr;
    const auto bytes = static_cast<uint64_t>(elements) * (dtype ? dtype_size(*dtype) : 1);
    if (!right_type || found.tensor->bytes() != bytes)
      throw UserError(printable_path(found.file->path()),
                      fmt::format("tensor '{}' is {} {}, but its quant_state asks for {} bytes{}", printable(name, 200),
                                  printable(found.tensor->dtype_text, 16), found.tensor->shape.str(), bytes,
                                  dtype ? fmt::format(" of {}", file_type_text(*dtype)) : ""),
                      kIncomplete);
    if (!suffix.empty()) names_.push_back(name);
    return found;
  }

  std::vector<float> floats(std::string_view suffix, int64_t elements) {
    const Part found = part(suffix, DType::kF32, elements);
    std::vector<float> values(elements);
    found.file->file().read(found.tensor->begin, std::as_writable_bytes(std::span(values)));
    return values;
  }

  void check_values(const std::vector<float>& quant_map) const {
    if (std::ranges::equal(quant_map, kNf4Values)) return;
    throw UserError(printable_path(files_[0].path()),
                    fmt::format("tensor '{}.quant_map' has not NF4's 16 values", printable(name_, 200)), kIncomplete);
  }

  std::vector<SafetensorsFile>& files_;
  const std::string name_;
  std::vector<std::string> names_;  // of what is beside the codes
  QuantState state_;
};

}  // namespace

bool FourBitTensor::is_of(int64_t block, DType dtype) const {
  return state_.block == block && state_.dtype == dtype && state_.offset &&
         std::ranges::equal(parts_.nested_map, dynamic_map());
}

std::vector<std::byte> FourBitTensor::absmax() const {
  std::vector<std::byte> bytes(state_.blocks() * (state_.offset ? 1 : sizeof(float)));
  parts_.absmax_file->file().read(parts_.absmax_begin, bytes);
  return bytes;
}

FourBitTensor::Codes FourBitTensor::codes(int64_t first, int64_t count) const {
  return {static_cast<uint64_t>(first_block_element(first)) / 2, static_cast<uint64_t>(first + count + 1) / 2};
}

void FourBitTensor::values(int64_t first, int64_t count, std::span<const std::byte> codes,
                           std::vector<std::byte>& to) const {
  const auto u8 = [](const auto* data, int64_t n) {
    return Tensor{const_cast<std::byte*>(data), {n}, DType::kU8, {}};
  };
  const auto f32 = [](const auto& of) {
    return host_tensor(const_cast<float*>(of.data()), {std::ssize(of)});
  };
  const int64_t begin = first_block_element(first), n = first + count - begin;
  Nf4Tensor tensor = {
      .elements = n, .block = state_.block, .first = begin, .codes = u8(codes.data(), std::ssize(codes)), .absmax = {}};
  const size_t absmax_size = state_.offset ? 1 : sizeof(float);
  std::vector<std::byte> absmax(tensor.blocks() * absmax_size);
  parts_.absmax_file->file().read(parts_.absmax_begin + begin / state_.block * absmax_size, absmax);
  float offset = state_.offset.value_or(0);
  tensor.absmax = u8(absmax.data(), std::ssize(absmax));
  if (state_.offset) {
    tensor.nested_absmax = f32(parts_.nested_absmax);
    tensor.nested_map = f32(parts_.nested_map);
    tensor.offset = host_tensor(&offset, {1});
  } else {
    tensor.absmax = {absmax.data(), {tensor.blocks()}, DType::kF32, {}};
  }
  std::vector<float> wide(n);
  nf4_values(tensor, wide.data());
  to.resize(count * dtype_size(state_.dtype));
  narrow(std::span(wide).subspan(first - begin), state_.dtype, to);
}

std::vector<std::string> join_four_bit(std::vector<SafetensorsFile>& files) {
  std::map<std::string, std::string> found;  // by the name of the quant_state, X
  for (const SafetensorsFile& file : files)
    for (const auto& [name, tensor] : file.tensors())
      if (const size_t suffix = name.rfind(kStateSuffix); suffix != name.npos)
        found.emplace(name, name.substr(0, suffix));
  std::vector<std::string> joined;
  for (const auto& [state_name, name] : found) {
    Joiner(files, name, state_name).join();
    joined.push_back(name);
  }
  return joined;
}

}  // namespace mixtune
