// Attention of new tokens over what a cache holds of their sequences.
#pragma once

#include "tensor/ctx.h"

namespace mixtune {

// Rows [0, live) of qkv [T, (q_heads + 2 kv_heads) * D], turned by RoPE, are tokens: row t's stands at positions[t] of
// sequence sequences[t], both [T] int32 on the device. keys and values [S, kv_heads, P, D], of qkv's dtype, hold S
// sequences of up to P positions each.
struct CachedTokens {
  Tensor qkv, sequences, positions;
  int64_t live;
  Tensor keys, values;
};

// Writes the tokens' keys and values to their places. No two tokens have the same.
void append_to_cache(Ctx& ctx, const CachedTokens& tokens);

// Writes out [T, q_heads * D], what attention.h says of each token's queries over the keys j of its sequence with
// position - window < j <= position (window 0: all j <= position), which the cache holds. Rows past `live` are 0.
void cached_attention(Ctx& ctx, const CachedTokens& tokens, int64_t window, const Tensor& out);

}  // namespace mixtune
