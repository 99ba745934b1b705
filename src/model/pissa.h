// PiSSA (Meng, Wang, Zhang 2024): pairs begin as the part of their weight with its largest singular values
// (principal_pair.h), and the weight is held without that: W - s B0 A0 + s B A. For a State whose adapters are
// Lora::pissa, with `s` its scale: it has what they began as too, A0 and -B0, which a checkpoint has behind A and
// beside B: a pair of twice the rank beside W as it was.
#pragma once

#include <cstdint>

#include "state/state.h"
#include "tensor/ctx.h"

namespace mixtune {

// Fills A and B, and A0 and -B0, by the weights, which are as the checkpoint has them. A0 and B0 are numbers of the
// weights' type. Those of a weight depend on it, `s` and the seed alone. All ranks call this; each computes those of
// all weights that it holds.
void initialise_principal_adapters(Ctx& ctx, uint64_t seed, double s, State& state);

// Takes s B0 A0 off each weight that has a pair: in fp64, rounded once. Once, after A0 and -B0 are there.
void take_off_principal_pairs(Ctx& ctx, double s, State& state);

}  // namespace mixtune
