#include "checkpoint/quant_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/json.h"
#include "base/json_value.h"

namespace mixtune {

namespace {

using nlohmann::json;

constexpr const char *kDamaged = "the file is damaged: get it again", *kConvert = "quantise the model anew, to NF4";
constexpr int64_t kNestedBlock = 256, kMaxElements = int64_t{1} << 48;
constexpr std::array<std::string_view, 7> kKeys = {
    "blocksize", "dtype", "nested_blocksize", "nested_dtype", "nested_offset", "quant_type", "shape"};

// The values of a text that is an object.
class QuantStateReader {
 public:
  QuantStateReader(std::string_view text, const std::string& where)
      : where_(where), values_(parse_json_object(text, where, kDamaged, 3)) {
    for (const auto& [key, value] : values_.items())
      if (std::ranges::find(kKeys, key) == kKeys.end())
        throw UserError(where_, fmt::format("has a key that mixtune does not know: {}", printable(key, 40)), kConvert);
  }

  bool has(const char* key) const { return values_.contains(key); }

  const json& at(const char* key) const {
    const auto value = values_.find(key);
    if (value == values_.end()) throw UserError(where_, fmt::format("has no {}", key), kDamaged);
    return *value;
  }

  [[noreturn]] void fail(const char* key, std::string_view what, const char* mend = kDamaged) const {
    throw UserError(where_, fmt::format("{} is {}, {}", key, printable(at(key).dump(), 60), what), mend);
  }

  QuantState read() const {
    if (at("quant_type") != "nf4") fail("quant_type", "but mixtune reads nf4", kConvert);
    QuantState state = {.dtype = dtype(), .shape = shape(), .block = block()};
    if (has("nested_offset") || has("nested_blocksize") || has("nested_dtype")) state.offset = offset();
    return state;
  }

 private:
  DType dtype() const {
    const json& value = at("dtype");
    if (value == "bfloat16") return DType::kBF16;
    if (value == "float16") return DType::kF16;
    if (value == "float32") return DType::kF32;
    fail("dtype", "but values are bfloat16, float16 or float32");
  }

  int64_t block() const {
    const json& value = at("blocksize");
    for (int64_t block = 32; block <= 4096; block *= 2)
      if (value == block) return block;
    fail("blocksize", "but blocks have 32, 64, 128, 256, 512, 1024, 2048 or 4096 elements");
  }

  Shape shape() const {
    const json& value = at("shape");
    std::array<int64_t, Shape::kMaxRank> dims{};
    if (!value.is_array() || value.empty() || value.size() > dims.size()) fail("shape", "but has 1 to 4 sizes");
    int64_t elements = 1;
    for (size_t i = 0; i < value.size(); ++i) {
      if (!value[i].is_number_unsigned() || value[i].get<uint64_t>() == 0 ||
          value[i].get<uint64_t>() >= static_cast<uint64_t>(kMaxElements / elements))
        fail("shape", "of which no tensor can be");
      dims[i] = value[i].get<int64_t>();
      elements *= dims[i];
    }
    return {dims.data(), static_cast<int>(value.size())};
  }

  float offset() const {
    if (at("nested_blocksize") != kNestedBlock) fail("nested_blocksize", "but mixtune reads 256", kConvert);
    if (at("nested_dtype") != "float32") fail("nested_dtype", "but mixtune reads float32", kConvert);
    const json& value = at("nested_offset");
    if (!value.is_number()) fail("nested_offset", "but must be a number");
    const auto wide = value.get<double>();
    if (!(std::abs(wide) <= std::numeric_limits<float>::max())) fail("nested_offset", "which is not finite in fp32");
    return static_cast<float>(wide);
  }

  const std::string& where_;
  const json values_;
};

}  // namespace

QuantState parse_quant_state(std::string_view json, const std::string& where) {
  if (json.size() > kMaxQuantStateBytes)
    throw UserError(where, fmt::format("has {} bytes: too many for a quant_state", json.size()), kDamaged);
  return QuantStateReader(json, where).read();
}

}  // namespace mixtune
