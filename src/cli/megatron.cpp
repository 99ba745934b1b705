#include "cli/megatron.h"

#include <fmt/format.h>

#include <map>
#include <string_view>

#include "base/error.h"
#include "config/keys.h"
#include "model/mixtral_config.h"

namespace mixtune {

namespace {

// The numbers of config.json that the table of arguments names; a boolean is 1 or 0.
std::map<std::string_view, double> numbers_of(const MixtralConfig& shape) {
  const auto number = [](int64_t n) {
    return static_cast<double>(n);
  };
  return {{"num_hidden_layers", number(shape.num_hidden_layers)},
          {"hidden_size", number(shape.hidden_size)},
          {"intermediate_size", number(shape.intermediate_size)},
          {"num_attention_heads", number(shape.num_attention_heads)},
          {"num_key_value_heads", number(shape.num_key_value_heads)},
          {"head_dim", number(shape.head_dim)},
          {"num_local_experts", number(shape.num_local_experts)},
          {"num_experts_per_tok", number(shape.num_experts_per_tok)},
          {"max_position_embeddings", number(shape.max_position_embeddings)},
          {"vocab_size", number(shape.vocab_size)},
          {"rope_theta", shape.rope_theta},
          {"rms_norm_eps", shape.rms_norm_eps},
          {"!tie_word_embeddings", shape.tie_word_embeddings ? 0 : 1}};
}

double parsed(const MegatronRun::Shape& said) {
  static const Key number = item_key(KeyType::kNumber, {0, 1e15}), boolean = item_key(KeyType::kBoolean);
  if (said.key.starts_with('!')) return std::get<bool>(parse_value(boolean, said.value, said.where)) ? 1 : 0;
  return std::get<double>(parse_value(number, said.value, said.where));
}

// Whether the model's number is what the arguments say. A checkpoint of the run may have rows that the run added.
bool agrees(const MegatronRun::Shape& said, double is, const Config& config) {
  const bool may_have_more = said.key == "vocab_size" && !config.begun_from.empty();
  return may_have_more ? parsed(said) <= is : parsed(said) == is;
}

}  // namespace

void apply_to_model(const MegatronRun& run, Config& config) {
  if (run.shape.empty()) return;
  const MixtralConfig shape = load_mixtral_config(config.model.model_name_or_path);
  const std::map<std::string_view, double> numbers = numbers_of(shape);
  for (const MegatronRun::Shape& said : run.shape)
    if (const double is = numbers.at(said.key); !agrees(said, is, config))
      throw UserError(said.where,
                      fmt::format("is {}, but config.json of {} has {} {}", printable(said.value),
                                  printable_path(config.model.model_name_or_path),
                                  said.key.substr(said.key.starts_with('!') ? 1 : 0),
                                  said.key.starts_with('!') ? (is == 0 ? "true" : "false") : fmt::format("{}", is)),
                      "name the model that the arguments are of, or mend them");
}

}  // namespace mixtune
