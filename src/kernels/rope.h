// Rotary position embedding (Su et al. 2021), in transformers' rotate_half layout: element i of a head turns with
// element i + D/2 by the angle position * theta^(-2i/D).
#pragma once

#include "tensor/ctx.h"

namespace mixtune {

// table [T, D]: cosines in columns [0, D/2), sines in [D/2, D). positions [T] int32. Angles are computed in fp32 from
// integer positions whatever the dtype (fp64 in the oracle).
void rope_table(Ctx& ctx, const Tensor& positions, double theta, const Tensor& table);

// Turns the query and key heads of qkv [T, (q_heads + 2 kv_heads) * D] in place; values stay.
// inverse: by the negative angle, which is the backward pass.
struct RopeArgs {
  Tensor qkv, table;
  int64_t q_heads, kv_heads;
  bool inverse = false;
};
void rope(Ctx& ctx, const RopeArgs& args);

}  // namespace mixtune
