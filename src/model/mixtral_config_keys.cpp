#include "model/mixtral_config_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

namespace mixtune {

namespace {

using nlohmann::json;

// Keys without a part in the maths of training.
constexpr std::string_view kHarmless =
    " _attn_implementation_autoset _name_or_path architectures bad_words_ids begin_suppress_tokens "
    "chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dtype "
    "early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty finetuning_task "
    "forced_bos_token_id forced_eos_token_id id2label is_decoder label2id length_penalty max_length "
    "max_new_tokens min_length model_type name_or_path no_repeat_ngram_size num_beam_groups num_beams num_labels "
    "num_return_sequences output_attentions output_hidden_states output_router_logits output_scores prefix "
    "pretraining_tp problem_type remove_invalid_values repetition_penalty return_dict return_dict_in_generate "
    "sep_token_id suppress_tokens task_specific_params temperature tf_legacy_loss tie_encoder_decoder "
    "tokenizer_class top_k top_p torch_dtype torchscript transformers_version typical_p use_bfloat16 use_cache ";

// Those that mixtral_config.cpp reads.
constexpr std::string_view kRead =
    " bos_token_id eos_token_id head_dim hidden_size initializer_range intermediate_size max_position_embeddings "
    "moe_router_expert_bias moe_router_pre_softmax moe_router_score_function moe_router_topk_scaling_factor "
    "num_attention_heads num_experts num_experts_per_tok num_hidden_layers num_key_value_heads num_local_experts "
    "pad_token_id quantization_config rms_norm_eps rope_parameters rope_scaling rope_theta router_aux_loss_coef "
    "sliding_window tie_word_embeddings vocab_size ";

}  // namespace

std::span<const FixedConfigKey> fixed_config_keys() {
  static const std::vector<FixedConfigKey> keys = {
      {"hidden_act", {"silu", "swish"}},
      {"attention_dropout", {0}},
      {"hidden_dropout", {0}},
      {"hidden_dropout_prob", {0}},
      {"residual_dropout", {0}},
      {"resid_pdrop", {0}},
      {"attn_pdrop", {0}},
      {"embd_pdrop", {0}},
      {"router_jitter_noise", {0}},
      {"input_jitter_noise", {0}},
      {"attention_bias", {false}},
      {"qkv_bias", {false}},
      {"mlp_bias", {false}},
      {"use_qk_norm", {false}},
      {"qk_norm", {false}},
      {"norm_topk_prob", {true}},
      {"scoring_func", {"softmax"}},
      {"routed_scaling_factor", {1}},
      {"n_shared_experts", {0}},
      {"num_shared_experts", {0}},
      {"shared_expert_intermediate_size", {0}},
      {"first_k_dense_replace", {0}},
      {"decoder_sparse_step", {1}},
      {"moe_layer_freq", {1}},
      {"mlp_only_layers", {json::array()}},
      {"partial_rotary_factor", {1}},
      {"attn_logit_softcapping", {}},
      {"final_logit_softcapping", {}},
      {"logit_scale", {1}},
      {"logits_scaling", {1}},
      {"embedding_multiplier", {1}},
      {"residual_multiplier", {1}},
      {"attention_multiplier", {}},
      {"layer_types", {}},
      {"per_layer_config", {}},
      {"pruned_heads", {json::object()}},
      {"is_encoder_decoder", {false}},
      {"add_cross_attention", {false}},
  };
  return keys;
}

bool is_known_config_key(std::string_view key) {
  const std::string word = fmt::format(" {} ", key);
  return kHarmless.find(word) != kHarmless.npos || kRead.find(word) != kRead.npos ||
         std::ranges::any_of(fixed_config_keys(), [&](const FixedConfigKey& fixed) { return key == fixed.key; });
}

}  // namespace mixtune
