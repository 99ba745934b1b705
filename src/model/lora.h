// Low-rank adapters (LoRA, Hu et al. 2021) of a model's projections: of which, and what they begin as.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/adapter.h"
#include "model/mixtral_config.h"
#include "state/state.h"

namespace mixtune {

// Each adapted projection W [out, in] is W + s B A, A [r, in] and B [out, r]: an expert's w1, w2 and w3 have pairs of
// their own in each expert. W is not trained then, nor is anything else of the model but what is trained whole.
struct Lora {
  int64_t rank = 0;       // r; 0: the model has no adapters
  double scale = 1;       // s
  double b_lr_ratio = 1;  // the learning rate of B, as a multiple of A's
  double dropout = 0;     // of the pairs' input, in training
  // Pairs begin as the part of W with its r largest singular values, and W is held without that (model/pissa.h).
  bool pissa = false;
  bool q = false, k = false, v = false, out = false, experts = false, gate = false, embedding = false, head = false;
  // How W of attention's and the experts' projections is held, with adapters or without: kNf4 is QLoRA (Dettmers et
  // al. 2023).
  BasePrecision base = BasePrecision::kAuto;

  // What is trained whole beside the pairs: entries of modules_to_save (state/adapter_names.h).
  std::vector<std::string> whole = {};

  bool is_set() const { return rank > 0; }
  // Whether the hub's tensor, "lm_head.weight", is trained whole.
  bool trains_whole(std::string_view tensor) const;
  // The names of the adapted modules: q_proj, ..., w3, gate, embed_tokens, lm_head.
  std::vector<std::string> modules() const;
  std::string str() const;  // "q_proj, v_proj of rank 16, scaling 2; whole: gate"
  // The rank of the pairs that are saved, which stand beside W as it was: with `pissa` the trained pairs less what they
  // began as, [A; A0] and [B, -B0].
  int64_t saved_rank() const { return pissa ? 2 * rank : rank; }
};

// A pair of all adapted modules of a weight, as kernels/adapter.h has it: the parameters' indices into State.
struct AdapterParams {
  int a = -1, b = -1;  // [m r, in], [rows, r]; of experts [experts here, ...]; -1: the weight has none
  AdaptedModules modules = {};
  int64_t rank = 0;

  bool is_set() const { return a >= 0; }
  int64_t inner_size() const { return modules.size * rank; }  // m r
};

// The names of a module's pair in an adapter's file (state/adapter_names.h); `module` is the hub's.
std::string lora_a_name(const std::string& module);
std::string lora_b_name(const std::string& module);

// What this rank owns of the primary of an adapter's parameter: of a block the elements from index `first` on.
struct OwnedBlock {
  const HfBlock& block;
  int64_t first;
  Tensor values;  // [n], at least one
};
std::vector<OwnedBlock> owned_blocks(const State& state, int param);

// A: uniform within 1/sqrt(in) (PEFT's kaiming_uniform with a = sqrt 5), the embedding's standard normal; B: 0. Each
// element of A is a hash of (seed, name, index): it is the same on any layout and device. Masters are as the weights
// were before they were rounded.
void initialise_adapters(Ctx& ctx, uint64_t seed, State& state);

}  // namespace mixtune
