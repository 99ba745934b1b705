// The key `freeze`: which parameters of a model are not trained.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "model/lora.h"
#include "model/mixtral_config.h"
#include "state/param_layout.h"

namespace mixtune {

// An entry is one of
//   attention, embeddings, experts, lm_head, norms, router      of all layers
//   layers.N, layers.A-B                                        all of these layers, A and B among them
//   layers.N.router, layers.A-B.experts, ...                    a part of them
//   model.layers.3.*, *.gate.weight, lm_head.weight, ...        Hugging Face tensors by name; * is any characters
struct Freeze {
  std::vector<std::string> entries = {};
  std::string where = "freeze";  // its place in messages

  bool is_set() const { return !entries.empty(); }
};

// Makes what the entries name not trainable. The result is the same whichever experts are here. Throws UserError for an
// entry that names nothing, for tensors of which a parameter has others too that stay trainable, and where nothing
// stays so.
void apply(const Freeze& freeze, const MixtralConfig& config, std::span<ParamSpec> specs);

// Whether nothing of the group is trained.
bool freezes_all(const Freeze& freeze, const Lora& lora, const MixtralConfig& config, WeightGroup group);

// "trained: 120 of 480 parameters (25.0%); frozen: router, layers.0-7"; with adapters: "trained: 12 of 492 parameters
// (2.4%), adapters of q_proj, v_proj of rank 16, scaling 2", and how many of their pairs are frozen: "...; frozen:
// layers.0-7 (16 of 64 pairs)"; "" where all is trained.
std::string describe_trained(const Freeze& freeze, const Lora& lora, const MixtralConfig& config);

}  // namespace mixtune
