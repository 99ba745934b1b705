#include "state/weight_sync.h"

#include <algorithm>

namespace mixtune {

WeightSync::WeightSync(const ParamLayout& layout, const Storage& weights, const Holders& holders)
    : layout_(layout),
      weights_(weights),
      holders_(holders),
      ungathered_(layout.buckets().size()),
      gathered_(layout.buckets().size()) {}

void WeightSync::gather_before(Ctx& ctx, size_t end) {
  for (; ungathered_ < std::min(end, gathered_.size()); ++ungathered_) {
    const ParamLayout::Bucket& bucket = layout_.buckets()[ungathered_];
    if (!layout_.sharded() || !bucket.trained || bucket.holders.size == 1) continue;
    const InLane lane(ctx);
    holders_.of(bucket).all_gather(ctx, kUpdates, weights_.bucket(ungathered_));
    gathered_[ungathered_] = mark_lane(ctx);
  }
}

void WeightSync::await(Ctx& ctx, int bucket) {
  constexpr size_t kAhead = 2;  // buckets of a layer
  const auto b = static_cast<size_t>(bucket);
  gather_before(ctx, b + 1 + kAhead);
  if (gathered_[b].place > 0) holders_.of(layout_.buckets()[b]).wait(ctx, kUpdates, gathered_[b]);
  gathered_[b] = {};
}

void WeightSync::await_all(Ctx& ctx) {
  for (size_t b = 0; b < gathered_.size(); ++b) await(ctx, static_cast<int>(b));
}

}  // namespace mixtune
