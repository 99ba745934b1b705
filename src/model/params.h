// The parameters of a Mixtral model, and of which Hugging Face tensors each is put together.
#pragma once

#include <string>
#include <vector>

#include "model/freeze.h"
#include "model/lora.h"
#include "model/mixtral_config.h"
#include "parallel/rank_grid.h"
#include "state/state.h"

namespace mixtune {

struct LayerParams {
  int input_norm;     // [H]
  int qkv;            // [q + 2 kv, H]: q, k, v rows in turn
  int attention_out;  // [H, q]
  int post_norm;      // [H]
  int router;         // [E, H]
  int gate_up;        // [experts here, 2F, H]: w1's rows, then w3's
  int down;           // [experts here, H, F]
  AdapterParams qkv_adapter, out_adapter, router_adapter, gate_up_adapter, down_adapter;
};

// Each parameter's index into State.
struct ModelParams {
  int embedding;  // [V, H]
  std::vector<LayerParams> layers;
  int final_norm;  // [H]
  int lm_head;     // [V, H]; the embedding itself where they are tied, and then neither has an adapter
  AdapterParams embedding_adapter, head_adapter;
  double adapter_scale = 1, adapter_dropout = 0;
};

struct ModelLayout {
  std::vector<ParamSpec> specs;
  ModelParams params;
};
// The layout of a rank that holds these experts. A layer's parameters are two buckets: dense ones, and the experts';
// more where `freeze` has a part of them, or `lora` adds its own, which, and what it trains whole, are all that is
// trained. Throws UserError
// as `apply` does.
ModelLayout make_layout(const MixtralConfig& config, RankGrid::Experts experts, const Freeze& freeze = {},
                        const Lora& lora = {});
// The layout of the whole model.
ModelLayout make_layout(const MixtralConfig& config);
// Its tensors as a State that holds nothing: for who reads and writes files.
State meta_state(const MixtralConfig& config);

// Random values: normal(0, initializer_range) in matrices, as transformers has them, and normal(1, norm_deviation) in
// norms. Each is a hash of (seed, Hugging Face tensor name, element index), computed by the host: it is the same on any
// layout and device.
struct RandomWeights {
  uint64_t seed;
  double norm_deviation = 0;
  DType rounded_to = DType::kF64;  // before anything else: weights of this type and of wider ones are the same
};
// Fills `to` [n], fp32 or bf16 in host memory, on all threads: with the bits that initialise_weights gives the elements
// from `first` on of the whole Hugging Face tensor of this name and shape.
void fill_random(const MixtralConfig& config, const RandomWeights& random, const std::string& tensor,
                 const Shape& shape, int64_t first, const Tensor& to);
// Fills every weight, which is fp32, bf16 or (on the CPU) fp64, and makes the masters equal to the weights.
void initialise_weights(Ctx& ctx, const MixtralConfig& config, const RandomWeights& random, State& state);

}  // namespace mixtune
