#include "checkpoint/side_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <string_view>

#include "base/error.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

// Weights in any format, and the state that other trainers leave beside them.
bool holds_weights(std::string_view name) {
  constexpr std::array<std::string_view, 10> kEndings = {
      ".safetensors", ".safetensors.index.json", ".bin.index.json", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack",
      ".onnx"};
  constexpr std::array<std::string_view, 3> kBinaries = {"pytorch_model", "training_args", "optimizer"};
  if (std::ranges::any_of(kEndings, [&](std::string_view ending) { return name.ends_with(ending); })) return true;
  return name.ends_with(".bin") &&
         std::ranges::any_of(kBinaries, [&](std::string_view start) { return name.starts_with(start); });
}

std::string_view hf_dtype_name(DType dtype) {
  if (dtype == DType::kBF16) return "bfloat16";
  if (dtype == DType::kF16) return "float16";
  MT_CHECK(dtype == DType::kF32);
  return "float32";
}

struct Span {
  size_t begin, size;
};

// The string literal that opens at text[quote], without its quotes.
Span string_at(std::string_view text, size_t quote) {
  size_t end = quote + 1;
  while (end < text.size() && text[end] != '"') end += text[end] == '\\' ? 2 : 1;
  return {quote + 1, std::min(end, text.size()) - quote - 1};
}

// Where the string value of the outermost object's `key` stands in JSON that is known to be well formed.
std::optional<Span> top_level_string(std::string_view text, std::string_view key) {
  int depth = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '{' || text[i] == '[') ++depth;
    if (text[i] == '}' || text[i] == ']') --depth;
    if (text[i] != '"') continue;
    const Span literal = string_at(text, i);
    i = literal.begin + literal.size;
    if (depth != 1 || text.substr(literal.begin, literal.size) != key) continue;
    const size_t colon = text.find_first_not_of(" \t\r\n", i + 1);
    if (colon == std::string_view::npos || text[colon] != ':') continue;
    const size_t value = text.find_first_not_of(" \t\r\n", colon + 1);
    if (value != std::string_view::npos && text[value] == '"') return string_at(text, value);
  }
  return {};
}

}  // namespace

std::vector<std::string> side_files(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    std::error_code unreadable;
    if (entry->is_regular_file(unreadable) && !holds_weights(name)) names.push_back(name);
  }
  if (error)
    throw UserError(printable(folder, 400), fmt::format("cannot be listed: {}", error.message()), "check the path");
  std::ranges::sort(names);
  return names;
}

std::string with_dtype(std::string config_json, DType dtype) {
  for (const std::string_view key : {"dtype", "torch_dtype"})
    if (const auto value = top_level_string(config_json, key))
      config_json.replace(value->begin, value->size, hf_dtype_name(dtype));
  return config_json;
}

}  // namespace mixtune
