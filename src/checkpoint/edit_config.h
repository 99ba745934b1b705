// Edits the text of a config.json; every other byte stays as it was.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/dtype.h"
#include "config/router_scores.h"

namespace mixtune {

// `config_json` with its top-level `dtype` or `torch_dtype` set to `dtype`. Where it has neither, one is added unless
// `dtype` is fp32, in which transformers 4 loads such a model: `dtype` in the dialect of transformers 5, else
// `torch_dtype`, which every version reads.
std::string with_dtype(std::string config_json, DType dtype);

// `config_json` without its top-level `quantization_config`: what is saved is not quantised.
std::string without_quantisation(std::string config_json);

// `config_json` with its top-level `vocab_size` set, or added.
std::string with_vocab_size(std::string config_json, int64_t vocab_size);

// `config_json` with its top-level `num_experts_per_tok` set, or added.
std::string with_experts_per_token(std::string config_json, int64_t k);

// `config_json` with the keys that MixtralConfig reads scores from. What says what Mixtral does anyway is not added.
std::string with_router_scores(std::string config_json, const RouterScores& scores);

// `config_json` with the experts' bias [L, E], by layers, to the last bit; empty: with none, if it had one.
std::string with_expert_bias(std::string config_json, std::span<const float> bias, int64_t experts);

// `config_json` with `architectures` added, where it has no such key: llama.cpp goes by it, and transformers may not.
std::string with_architectures(std::string config_json);

}  // namespace mixtune
