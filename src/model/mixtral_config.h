// MixtralConfig: the shape of a Mixtral model, as config.json says it, checked.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/router_scores.h"

namespace mixtune {

struct MixtralConfig {
  int64_t vocab_size = 0;
  int64_t added_tokens = 0;  // the last rows of vocab_size, which the checkpoint lacks; config.json has none
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;  // hidden_size / num_attention_heads where config.json has none
  int64_t num_local_experts = 0;
  int64_t num_experts_per_tok = 0;
  int64_t max_position_embeddings = 0;
  int64_t sliding_window = 0;  // 0: none
  double rope_theta = 0;
  double rms_norm_eps = 0;
  double initializer_range = 0;
  double router_aux_loss_coef = 0;
  RouterScores router_scores;      // by keys of config.json that transformers does not know (docs/router.md)
  std::vector<float> expert_bias;  // [L, E], with router_scores.expert_bias; another such key
  bool tie_word_embeddings = false;
  std::string dtype;  // of the weights: "bfloat16", say; "": config.json has none
  std::optional<int64_t> bos_token_id, pad_token_id;
  std::vector<int32_t> eos_token_ids;  // as config.json lists them

  int64_t query_size() const { return num_attention_heads * head_dim; }
  int64_t kv_size() const { return num_key_value_heads * head_dim; }
  int64_t qkv_size() const { return query_size() + 2 * kv_size(); }
};

// Parses the text of a config.json, in transformers 4's dialect or 5's. `where` names it in messages. A missing key
// takes transformers' default. Throws UserError for what is malformed, impossible, or changes the maths and is not
// implemented.
MixtralConfig parse_mixtral_config(std::string_view json, const std::string& where);

// Reads FOLDER/config.json.
MixtralConfig load_mixtral_config(const std::string& folder);

}  // namespace mixtune
