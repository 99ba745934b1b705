#include "checkpoint/edit_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace mixtune {

namespace {

constexpr std::string_view kSpace = " \t\r\n";

std::string_view hf_dtype_name(DType dtype) {
  if (dtype == DType::kBF16) return "bfloat16";
  if (dtype == DType::kF16) return "float16";
  MT_CHECK(dtype == DType::kF32);
  return "float32";
}

struct Span {
  size_t begin, size;
};

// The string literal that opens at text[quote], with its quotes.
Span string_at(std::string_view text, size_t quote) {
  size_t end = quote + 1;
  while (end < text.size() && text[end] != '"') end += text[end] == '\\' ? 2 : 1;
  return {quote, std::min(end + 1, text.size()) - quote};
}

// Where what opens with the bracket text[open] ends.
Span nested_at(std::string_view text, size_t open) {
  int depth = 0;
  for (size_t i = open; i < text.size(); ++i) {
    if (text[i] == '"') i += string_at(text, i).size - 1;
    if (i >= text.size()) break;
    if (text[i] == '{' || text[i] == '[') ++depth;
    if ((text[i] == '}' || text[i] == ']') && --depth == 0) return {open, i + 1 - open};
  }
  return {open, text.size() - open};
}

// Where the value of the outermost object's `key` stands in JSON that is known to be well formed; an object or array
// from its bracket to the one that closes it.
std::optional<Span> top_level_value(std::string_view text, std::string_view key) {
  int depth = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '{' || text[i] == '[') ++depth;
    if (text[i] == '}' || text[i] == ']') --depth;
    if (text[i] != '"') continue;
    const Span literal = string_at(text, i);
    i = literal.begin + literal.size - 1;
    if (depth != 1 || literal.size != key.size() + 2 || text.substr(literal.begin + 1, key.size()) != key) continue;
    const size_t colon = text.find_first_not_of(kSpace, i + 1);
    if (colon == text.npos || text[colon] != ':') continue;
    const size_t value = text.find_first_not_of(kSpace, colon + 1);
    if (value == text.npos) continue;
    if (text[value] == '"') return string_at(text, value);
    if (text[value] == '[' || text[value] == '{') return nested_at(text, value);
    return Span{value, text.find_first_of(",}] \t\r\n", value) - value};
  }
  return {};
}

// By transformers_version; without one, by a key that only transformers 5 writes.
bool is_fifth_dialect(std::string_view text) {
  constexpr int kFifth = 5;
  if (const auto version = top_level_value(text, "transformers_version"))
    return std::atoi(std::string(text.substr(version->begin + 1, version->size - 1)).c_str()) >= kFifth;
  return top_level_value(text, "rope_parameters").has_value();
}

// The text with a new first member of the outermost object.
std::string with_member(std::string config_json, std::string_view key, std::string_view value) {
  const size_t brace = config_json.find('{');
  const size_t member = config_json.find_first_not_of(kSpace, brace + 1);
  MT_CHECK(brace != config_json.npos && member != config_json.npos);
  const std::string indent = config_json.substr(brace + 1, member - brace - 1);
  const std::string entry = fmt::format("\"{}\": {}", key, value);
  return config_json.insert(member, config_json[member] == '}' ? entry : entry + "," + indent);
}

// The text with the outermost object's `key` set, or added.
std::string with_value(std::string config_json, std::string_view key, std::string_view value) {
  if (const auto old = top_level_value(config_json, key)) return config_json.replace(old->begin, old->size, value);
  return with_member(std::move(config_json), key, value);
}

}  // namespace

std::string with_dtype(std::string config_json, DType dtype) {
  const std::string value = fmt::format("\"{}\"", hf_dtype_name(dtype));
  bool named = false;
  for (const std::string_view key : {"dtype", "torch_dtype"})
    if (const auto old = top_level_value(config_json, key)) {
      const std::string_view text = std::string_view(config_json).substr(old->begin, old->size);
      named = named || text[0] == '"' || text == "null";
      if (text[0] == '"' || text == "null") config_json.replace(old->begin, old->size, value);
    }
  if (named || dtype == DType::kF32) return config_json;
  const char* const key = is_fifth_dialect(config_json) ? "dtype" : "torch_dtype";
  return with_member(std::move(config_json), key, value);
}

std::string without_quantisation(std::string config_json) {
  constexpr std::string_view kKey = "\"quantization_config\"";
  const auto value = top_level_value(config_json, kKey.substr(1, kKey.size() - 2));
  if (!value) return config_json;
  size_t begin = config_json.rfind(kKey, value->begin), end = value->begin + value->size;
  const size_t next = config_json.find_first_not_of(kSpace, end);
  const size_t last = config_json.find_last_not_of(kSpace, begin - 1);
  if (next != config_json.npos && config_json[next] == ',')
    end = config_json.find_first_not_of(kSpace, next + 1);
  else
    begin = config_json[last] == ',' ? last : last + 1;
  return config_json.erase(begin, end - begin);
}

std::string with_vocab_size(std::string config_json, int64_t vocab_size) {
  return with_value(std::move(config_json), "vocab_size", std::to_string(vocab_size));
}

std::string with_experts_per_token(std::string config_json, int64_t k) {
  return with_value(std::move(config_json), "num_experts_per_tok", std::to_string(k));
}

std::string with_router_scores(std::string config_json, const RouterScores& scores) {
  const auto set = [&](std::string_view key, const std::string& value, bool is_mixtrals) {
    if (!is_mixtrals || top_level_value(config_json, key)) config_json = with_value(std::move(config_json), key, value);
  };
  const bool sigmoid = scores.scoring == Scoring::kSigmoid, pre_softmax = scores.scoring == Scoring::kPreSoftmax;
  set("moe_router_score_function", sigmoid ? R"("sigmoid")" : R"("softmax")", !sigmoid);
  set("moe_router_pre_softmax", pre_softmax ? "true" : "false", !pre_softmax);
  set("moe_router_topk_scaling_factor", fmt::format("{}", scores.scaling), scores.scaling == 1);
  return config_json;
}

std::string with_expert_bias(std::string config_json, std::span<const float> bias, int64_t experts) {
  constexpr std::string_view kKey = "moe_router_expert_bias";
  if (bias.empty())
    return top_level_value(config_json, kKey) ? with_value(std::move(config_json), kKey, "null") : config_json;
  std::vector<std::string> layers;
  for (auto rest = bias; !rest.empty(); rest = rest.subspan(experts)) {
    const std::vector<double> numbers(rest.begin(), rest.begin() + experts);  // a double's digits are the float's own
    layers.push_back(fmt::format("[{}]", fmt::join(numbers, ", ")));
  }
  return with_value(std::move(config_json), kKey, fmt::format("[{}]", fmt::join(layers, ", ")));
}

std::string with_architectures(std::string config_json) {
  constexpr std::string_view kKey = "architectures";
  if (top_level_value(config_json, kKey)) return config_json;
  return with_member(std::move(config_json), kKey, R"(["MixtralForCausalLM"])");
}

}  // namespace mixtune
