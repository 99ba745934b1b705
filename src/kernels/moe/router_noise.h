// What is drawn for routers in training: by hashes of a key and a token's number in the global batch, of which row 0
// has `first_token`, so that it depends on no layout.
#pragma once

#include "base/random.h"
#include "tensor/ctx.h"

namespace mixtune {

// y [T, H] = x times factors in [1 - eps, 1 + eps), one for each element; with accumulate += that.
struct RouterJitter {
  Tensor x, y;
  uint64_t key;
  int64_t first_token;
  double eps;  // in [0, 1]
  bool accumulate = false;
};
void router_jitter(Ctx& ctx, const RouterJitter& args);

// Rows [0, live) of experts [T, k] int32 = k neighbours of all_experts, the last one's being the first: each expert as
// likely as any. Dead rows: -1.
struct DrawExperts {
  Tensor experts;
  int64_t all_experts, live;
  uint64_t key;
  int64_t first_token;
};
void draw_experts(Ctx& ctx, const DrawExperts& args);

// The same on every device, but for a last bit of the factor.
constexpr float jitter_factor(uint64_t mixed_key, uint64_t element, float eps) {
  return 1 + eps * (static_cast<float>(mixed_bits(mixed_key, element) >> 40) * 0x1p-23f - 1);
}
constexpr int32_t drawn_expert(uint64_t mixed_key, uint64_t token, uint64_t slot, uint64_t experts) {
  return static_cast<int32_t>((mixed_bits(mixed_key, token) % experts + slot) % experts);
}

}  // namespace mixtune
