#include "state/gradient_sync.h"

#include "kernels/cast.h"

namespace mixtune {

GradientSync::GradientSync(const ParamLayout& layout, const Storage& gradients, const Holders& holders)
    : layout_(layout),
      gradients_(gradients),
      holders_(holders),
      written_(layout.size(), false),
      reduced_(layout.buckets().size(), false),
      reduced_at_(layout.buckets().size()) {}

void GradientSync::begin_step() {
  written_.assign(written_.size(), false);
  reduced_.assign(reduced_.size(), false);
  last_micro_batch_ = false;
  in_step_ = true;
}

void GradientSync::begin_last_micro_batch() {
  MT_CHECK(in_step_);
  last_micro_batch_ = true;
}

void GradientSync::notify(int param) {
  MT_CHECK(gradients_.part(param));
  written_[param] = true;
}

Tensor GradientSync::finished(Ctx& ctx, int param) {
  const Tensor gradient = gradients_.part(param);
  if (gradient && !written_[param]) {
    zero(ctx, gradient);
    written_[param] = true;
  }
  return gradient;
}

// Goes from the last bucket to the first: backward writes them in that order.
void GradientSync::complete_from(Ctx& ctx, const Place& place) {
  if (!last_micro_batch_) return;
  for (size_t b = reduced_.size(); b-- > 0;) {
    const Place& here = layout_.buckets()[b].place;
    if (!reduced_[b] && here.stage == place.stage && here >= place) reduce(ctx, b);
  }
}

void GradientSync::reduce(Ctx& ctx, size_t b) {
  const ParamLayout::Bucket& bucket = layout_.buckets()[b];
  reduced_[b] = true;
  for (int p = bucket.first; p < bucket.last; ++p) finished(ctx, p);
  if (!gradients_.bucket(b) || bucket.holders.size == 1) return;
  const InLane lane(ctx);
  if (layout_.sharded())
    holders_.of(bucket).reduce_scatter(ctx, kSums, gradients_.bucket(b));
  else
    holders_.of(bucket).all_reduce(ctx, kSums, gradients_.bucket(b));
  reduced_at_[b] = mark_lane(ctx);
}

void GradientSync::finish(Ctx& ctx) {
  MT_CHECK(in_step_);
  last_micro_batch_ = true;
  for (size_t b = reduced_.size(); b-- > 0;)
    if (!reduced_[b]) reduce(ctx, b);
  for (size_t b = 0; b < reduced_.size(); ++b) {
    const ParamLayout::Bucket& bucket = layout_.buckets()[b];
    if (gradients_.bucket(b) && bucket.holders.size > 1) holders_.of(bucket).wait(ctx, kSums, reduced_at_[b]);
  }
  in_step_ = false;
}

}  // namespace mixtune
