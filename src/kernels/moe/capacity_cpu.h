// CPU twin of capacity.h.
#pragma once

#include <algorithm>
#include <bit>
#include <type_traits>
#include <utility>

#include "kernels/moe/capacity.h"

namespace mixtune::cpu {

// Numbers that are not negative in their order; a NaN is one of them.
template <class S>
auto order_of(S weight) {
  return std::bit_cast<std::conditional_t<sizeof(S) == 4, uint32_t, uint64_t>>(weight);
}

// pairs [T * k] = the pairs of each expert, in their order; those of e end at end[e].
inline void list_pairs(const Tensor& experts, int32_t* pairs, int32_t* end, int64_t all_experts) {
  const int32_t* expert = experts.as<int32_t>();
  const int64_t count = experts.elements();
  std::fill_n(end, all_experts, 0);
  for (int64_t i = 0; i < count; ++i)
    if (expert[i] >= 0) ++end[expert[i]];
  for (int64_t e = 0, begin = 0; e < all_experts; ++e) begin += std::exchange(end[e], static_cast<int32_t>(begin));
  for (int64_t i = 0; i < count; ++i)
    if (expert[i] >= 0) pairs[end[expert[i]]++] = static_cast<int32_t>(i);
}

inline void count_dropped(const DropPairs& args) {
  const int64_t k = args.experts.shape[1];
  const int32_t *expert = args.experts.as<int32_t>(), *sent = args.sent.as<int32_t>();
  for (int64_t first = 0; first < args.experts.elements(); first += k) {
    int64_t lost = 0;
    for (int64_t i = first; i < first + k; ++i) lost += expert[i] >= 0 && sent[i] < 0;
    args.dropped.as<double>()[0] += static_cast<double>(lost);
    args.dropped.as<double>()[1] += lost == k ? 1 : 0;
  }
}

template <class S>
void drop_pairs(Ctx& ctx, const DropPairs& args) {
  const Stack::Frame frame(ctx.stack);
  const int64_t count = args.experts.elements();
  int32_t* pairs = ctx.stack.push("pairs by expert", {count}, DType::kI32).as<int32_t>();
  int32_t* end = ctx.stack.push("ends of experts", {args.all_experts}, DType::kI32).as<int32_t>();
  list_pairs(args.experts, pairs, end, args.all_experts);
  int32_t* sent = args.sent.as<int32_t>();
  std::copy_n(args.experts.as<int32_t>(), count, sent);
  const S* weight = args.weights.as<S>();
  const auto goes_first = [&](int32_t a, int32_t b) {
    const auto of_a = order_of(weight[a]), of_b = order_of(weight[b]);
    return of_a == of_b ? a < b : of_a > of_b;
  };
  for (int64_t e = 0; e < args.all_experts; ++e) {
    int32_t *first = e == 0 ? pairs : pairs + end[e - 1], *last = pairs + end[e];
    if (last - first <= args.most) continue;
    if (args.policy == TokenDropPolicy::kProbs) std::nth_element(first, first + args.most, last, goes_first);
    for (int32_t* pair = first + args.most; pair < last; ++pair) sent[*pair] = -1;
  }
  if (args.dropped) count_dropped(args);
}

}  // namespace mixtune::cpu
