#include "model/mixtral_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <vector>

#include "base/contained.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/json_value.h"
#include "base/log.h"
#include "config/config.h"
#include "model/mixtral_config_keys.h"

namespace mixtune {

namespace {

using nlohmann::json;

constexpr int kMaxDepth = 16;
constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();
constexpr double kMaxParameters = 1e15;              // far from what overflows, in elements or bytes
constexpr int64_t kMaxExpertsOfAllLayers = 1 << 17;  // each has three tensors, with a name

// A short, printable form of a value from the file.
std::string shown(const json& value) {
  return printable(value.dump(-1, ' ', false, json::error_handler_t::replace), 60);
}

// Reads the keys of one object, checks their types and bounds.
class Reader {
 public:
  Reader(const json& object, std::string where) : object_(object), where_(std::move(where)) {}

  const json* find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() ? nullptr : &*found;
  }

  // Empty where the key is missing or null.
  std::optional<int64_t> optional_integer(const char* key, int64_t least, int64_t most) const {
    const json* value = find(key);
    if (value == nullptr || value->is_null()) return {};
    return checked_integer(key, *value, least, most);
  }

  int64_t integer(const char* key, int64_t fallback, int64_t most) const {
    const json* value = find(key);
    return value == nullptr ? fallback : checked_integer(key, *value, 1, most);
  }

  double number(const char* key, double fallback, double least, double most) const {
    const json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_number()) fail(key, *value, "must be a number");
    const double x = value->get<double>();
    if (!(x >= least && x <= most)) fail(key, *value, fmt::format("must be between {} and {}", least, most));
    return x;
  }

  bool boolean(const char* key, bool fallback) const {
    const json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) fail(key, *value, "must be true or false");
    return value->get<bool>();
  }

  int64_t checked_integer(const char* key, const json& value, int64_t least, int64_t most) const {
    if (!value.is_number_integer()) fail(key, value, "must be a whole number");
    const bool too_large = value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(most);
    if (too_large || value.get<int64_t>() < least || value.get<int64_t>() > most)
      fail(key, value, fmt::format("must be between {} and {}", least, most));
    return value.get<int64_t>();
  }

  [[noreturn]] void fail(const char* key, const json& value, const std::string& what) const {
    throw UserError(where_, fmt::format("{} is {}, but {}", key, shown(value), what), "mend the file");
  }

  [[noreturn]] void fail(const std::string& what) const { throw UserError(where_, what, "mend the file"); }

  const json& object() const { return object_; }
  const std::string& where() const { return where_; }

 private:
  const json& object_;
  std::string where_;
};

void check_architecture(const Reader& reader) {
  const json* type = reader.find("model_type");
  if (type == nullptr || *type != "mixtral")
    throw UserError(reader.where(), fmt::format("model_type is {}", type == nullptr ? "missing" : shown(*type)),
                    "mixtune trains models of model_type \"mixtral\"");
  const json* names = reader.find("architectures");
  if (names == nullptr || names->is_null() || (names->is_array() && names->empty())) return;
  if (!names->is_array() || std::ranges::find(*names, json("MixtralForCausalLM")) == names->end())
    throw UserError(reader.where(), fmt::format("architectures is {}", shown(*names)),
                    "mixtune trains MixtralForCausalLM");
}

void check_fixed(const Reader& reader) {
  for (const FixedConfigKey& fixed : fixed_config_keys()) {
    const json* value = reader.find(fixed.key);
    if (value == nullptr || value->is_null()) continue;
    if (std::ranges::find(fixed.neutral, *value) == fixed.neutral.end())
      throw UserError(
          reader.where(), fmt::format("{} is {}, which mixtune does not implement", fixed.key, shown(*value)),
          fixed.neutral.empty() ? std::string("use a model without it")
                                : fmt::format("it can train models where it is {}", shown(fixed.neutral[0])));
  }
}

// The weights of a 4-bit folder are dequantised as they are read; what else is quantised is not read.
void check_quantisation(const Reader& reader) {
  const json* value = reader.find("quantization_config");
  if (value == nullptr || value->is_null()) return;
  const std::string where = reader.where() + ": quantization_config";
  const auto fail = [&](const std::string& what) {
    throw UserError(where, what, "mixtune reads bitsandbytes' 4 bits of type nf4: use those, or the model in bf16");
  };
  if (!value->is_object()) fail(fmt::format("is {}, but must be an object or null", shown(*value)));
  const auto is = [&](const char* key, const json& wanted, const json& otherwise) {
    const json found = value->value(key, otherwise);
    if (found != wanted) fail(fmt::format("{} is {}, which mixtune does not read", key, shown(found)));
  };
  is("quant_method", "bitsandbytes", "bitsandbytes");
  is("load_in_8bit", false, false);
  is("load_in_4bit", true, false);
  is("bnb_4bit_quant_type", "nf4", "fp4");  // transformers' own default
}

void warn_of_unknown(const Reader& reader) {
  std::vector<std::string> unknown;
  for (const auto& [key, value] : reader.object().items()) {
    if (!is_known_config_key(key) && unknown.size() < 8) unknown.push_back(printable(key, 40));
  }
  if (!unknown.empty())
    log_warning("{}: keys that mixtune does not know are ignored: {}", reader.where(), fmt::join(unknown, ", "));
}

constexpr double kMaxTheta = 1e18;

// Reads rope_theta from transformers 5's dictionary `rope_parameters`, or transformers 4's `rope_scaling`.
std::optional<double> read_rope(const Reader& reader, const char* key) {
  const json* value = reader.find(key);
  if (value == nullptr || value->is_null()) return {};
  if (!value->is_object()) reader.fail(key, *value, "must be an object or null");
  const Reader rope(*value, fmt::format("{}: {}", reader.where(), key));
  for (const auto& [name, item] : value->items()) {
    const bool type = name == "rope_type" || name == "type";
    if (name == "rope_theta" || (type && item == "default") || (name == "partial_rotary_factor" && item == 1)) continue;
    throw UserError(rope.where(),
                    fmt::format("{} is {}, which mixtune does not implement", printable(name), shown(item)),
                    "it can train models with the default RoPE");
  }
  if (rope.find("rope_theta") == nullptr) return {};
  return rope.number("rope_theta", 0, std::numeric_limits<double>::min(), kMaxTheta);
}

double read_rope_theta(const Reader& reader) {
  constexpr double kDefault = 1e6;
  std::optional<double> theta;
  const auto merge = [&](std::optional<double> other) {
    if (theta && other && *theta != *other)
      reader.fail(fmt::format("rope_theta is said to be {} and {}", *theta, *other));
    if (other) theta = other;
  };
  merge(read_rope(reader, "rope_parameters"));
  merge(read_rope(reader, "rope_scaling"));
  if (reader.find("rope_theta") != nullptr)
    merge(reader.number("rope_theta", 0, std::numeric_limits<double>::min(), kMaxTheta));
  return theta.value_or(kDefault);
}

// transformers takes `num_experts` for the same thing.
int64_t read_experts(const Reader& reader) {
  constexpr int64_t kMost = 1 << 16;
  const int64_t experts = reader.integer("num_local_experts", reader.integer("num_experts", 8, kMost), kMost);
  if (reader.integer("num_experts", experts, kMost) != experts) reader.fail("num_experts and num_local_experts differ");
  return experts;
}

// A list of ids is read as its first, by the hub's custom.
std::optional<int64_t> read_token(const Reader& reader, const char* key, std::optional<int64_t> fallback,
                                  int64_t vocab_size) {
  const json* value = reader.find(key);
  if (value == nullptr) return fallback;
  if (!value->is_array()) return reader.optional_integer(key, 0, vocab_size - 1);
  if (value->empty()) return {};
  return reader.checked_integer(key, value->front(), 0, vocab_size - 1);
}

std::vector<int32_t> read_eos_tokens(const Reader& reader, int64_t vocab_size) {
  constexpr int32_t kDefault = 2;
  const json* value = reader.find("eos_token_id");
  if (value == nullptr) return {kDefault};
  if (value->is_null()) return {};
  std::vector<int32_t> ids;
  for (const json& id : value->is_array() ? *value : json::array({*value}))
    ids.push_back(static_cast<int32_t>(reader.checked_integer("eos_token_id", id, 0, vocab_size - 1)));
  return ids;
}

// A negative id is the custom of Meta's configs for none. transformers takes it as torch does, from the vocabulary's
// end.
std::optional<int64_t> read_pad_token(const Reader& reader, int64_t vocab_size) {
  const json* value = reader.find("pad_token_id");
  if (value == nullptr || value->is_array()) return read_token(reader, "pad_token_id", {}, vocab_size);
  const auto id = reader.optional_integer("pad_token_id", -vocab_size, vocab_size - 1);
  return id && *id < 0 ? std::nullopt : id;
}

int64_t read_head_dim(const Reader& reader, const MixtralConfig& config) {
  const int64_t heads = config.num_attention_heads;
  const auto given = reader.optional_integer("head_dim", 2, 1 << 16);
  if (!given && config.hidden_size % heads != 0)
    reader.fail(fmt::format("hidden_size {} is not a multiple of num_attention_heads {}", config.hidden_size, heads));
  const int64_t head_dim = given.value_or(config.hidden_size / heads);
  if (head_dim % 2 != 0) reader.fail(fmt::format("head_dim is {}, but RoPE needs an even one", head_dim));
  return head_dim;
}

// By transformers 5's name, or 4's. Says nothing of how a model computes: any text may stand there.
std::string read_dtype(const Reader& reader) {
  for (const char* key : {"dtype", "torch_dtype"})
    if (const json* value = reader.find(key); value != nullptr && value->is_string()) return value->get<std::string>();
  return "";
}

// As edit_config.h writes them; config.json of other programs has none.
RouterScores read_router_scores(const Reader& reader) {
  RouterSettings settings;
  const json* function = reader.find("moe_router_score_function");
  if (function != nullptr && *function != "softmax" && *function != "sigmoid")
    reader.fail("moe_router_score_function", *function, "must be softmax or sigmoid");
  if (function != nullptr)
    settings.moe_router_score_function = *function == "sigmoid" ? ScoreFunction::kSigmoid : ScoreFunction::kSoftmax;
  settings.moe_router_pre_softmax = reader.boolean("moe_router_pre_softmax", false);
  settings.moe_router_topk_scaling_factor =
      reader.number("moe_router_topk_scaling_factor", 1, kLeastScoreScaling, kMostScoreScaling);
  return router_scores(settings, {});
}

// Lists of a layer's experts, one for each layer; null is the same as none.
void read_expert_bias(const Reader& reader, MixtralConfig& config) {
  constexpr const char* kKey = "moe_router_expert_bias";
  const json* value = reader.find(kKey);
  if (value == nullptr || value->is_null()) return;
  const auto is_list = [&](const json& list, int64_t size) {
    return list.is_array() && list.size() == static_cast<size_t>(size);
  };
  if (config.router_scores.scoring != Scoring::kSigmoid)
    reader.fail(kKey, *value, "moe_router_score_function is not sigmoid");
  if (!is_list(*value, config.num_hidden_layers))
    reader.fail(kKey, *value, fmt::format("must be {} lists, one for each layer", config.num_hidden_layers));
  for (const json& layer : *value) {
    if (!is_list(layer, config.num_local_experts))
      reader.fail(kKey, layer, fmt::format("must have {} numbers for each layer", config.num_local_experts));
    for (const json& number : layer) {
      if (!number.is_number() || !(std::abs(number.get<double>()) <= kMostExpertBias))
        reader.fail(kKey, number, fmt::format("must have numbers between {0} and -{0}", kMostExpertBias));
      config.expert_bias.push_back(number.get<float>());
    }
  }
  config.router_scores.expert_bias = true;
}

void check_shape(const Reader& reader, const MixtralConfig& c) {
  if (c.num_attention_heads % c.num_key_value_heads != 0)
    reader.fail(fmt::format("num_attention_heads {} is not a multiple of num_key_value_heads {}", c.num_attention_heads,
                            c.num_key_value_heads));
  if (c.num_experts_per_tok > c.num_local_experts)
    reader.fail(
        fmt::format("num_experts_per_tok is {}, but there are {} experts", c.num_experts_per_tok, c.num_local_experts));
  if (c.num_hidden_layers * c.num_local_experts > kMaxExpertsOfAllLayers)
    reader.fail(fmt::format("describes {} layers of {} experts, more than {} experts in all", c.num_hidden_layers,
                            c.num_local_experts, kMaxExpertsOfAllLayers));
  const auto size = [](int64_t n) {
    return static_cast<double>(n);
  };
  const double hidden = size(c.hidden_size);
  const double attention = hidden * (2 * size(c.query_size()) + 2 * size(c.kv_size()));
  const double experts = size(c.num_local_experts) * hidden * (3 * size(c.intermediate_size) + 1);
  const double parameters = size(c.num_hidden_layers) * (attention + experts) + 2 * hidden * size(c.vocab_size);
  if (parameters > kMaxParameters) reader.fail(fmt::format("describes a model of {:.0e} parameters", parameters));
}

}  // namespace

MixtralConfig parse_mixtral_config(std::string_view text, const std::string& where) {
  const json object = parse_json_object(text, where, "mend the file or get it again", kMaxDepth);
  const Reader reader(object, where);
  check_architecture(reader);
  check_fixed(reader);
  check_quantisation(reader);
  MixtralConfig c;
  c.vocab_size = reader.integer("vocab_size", 32000, kMaxInt32);
  c.hidden_size = reader.integer("hidden_size", 4096, 1 << 24);
  c.intermediate_size = reader.integer("intermediate_size", 14336, 1 << 24);
  c.num_hidden_layers = reader.integer("num_hidden_layers", 32, 1 << 16);
  c.num_attention_heads = reader.integer("num_attention_heads", 32, 1 << 16);
  const json* kv_heads = reader.find("num_key_value_heads");
  c.num_key_value_heads = kv_heads != nullptr && kv_heads->is_null()
                              ? c.num_attention_heads
                              : reader.integer("num_key_value_heads", 8, 1 << 16);
  c.head_dim = read_head_dim(reader, c);
  c.num_local_experts = read_experts(reader);
  c.num_experts_per_tok = reader.integer("num_experts_per_tok", 2, 1 << 16);
  c.max_position_embeddings = reader.integer("max_position_embeddings", 4096 * 32, kMaxInt32);
  c.sliding_window = reader.optional_integer("sliding_window", 1, kMaxInt32).value_or(0);
  c.rope_theta = read_rope_theta(reader);
  c.rms_norm_eps = reader.number("rms_norm_eps", 1e-5, 1e-30, 1);
  c.initializer_range = reader.number("initializer_range", 0.02, 0, 1000);
  c.router_aux_loss_coef = reader.number("router_aux_loss_coef", 0.001, 0, 1e6);
  c.router_scores = read_router_scores(reader);
  c.tie_word_embeddings = reader.boolean("tie_word_embeddings", false);
  c.dtype = read_dtype(reader);
  c.bos_token_id = read_token(reader, "bos_token_id", 1, c.vocab_size);
  c.eos_token_ids = read_eos_tokens(reader, c.vocab_size);
  c.pad_token_id = read_pad_token(reader, c.vocab_size);
  check_shape(reader, c);
  read_expert_bias(reader, c);
  warn_of_unknown(reader);
  return c;
}

MixtralConfig load_mixtral_config(const std::string& folder) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::file_status status = fs::status(folder, error);
  if (!fs::exists(status))
    throw UserError(
        printable_path(folder), "there is no such model folder",
        "give the path of a downloaded checkpoint ('hf download NAME --local-dir DIR' gets one from the hub)");
  if (!fs::is_directory(status))
    throw UserError(printable_path(folder), "is not a folder", "give the folder that holds config.json");
  return parse_mixtral_config(read_config_json(folder), printable_path(folder + "/config.json"));
}

}  // namespace mixtune
