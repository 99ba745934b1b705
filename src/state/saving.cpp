// The part of State that a checkpoint calls. It goes through the buckets by rounds of the holders' turns.
#include <algorithm>

#include "kernels/cast.h"
#include "state/state_parts.h"

namespace mixtune {

namespace {

using Bucket = ParamLayout::Bucket;

// The end of the round of turns that begins with bucket `begin`. In a round all holders of the dense parameters have
// one turn, those of experts as many as lie between.
size_t end_of_round(const ParamLayout& layout, size_t begin) {
  const std::vector<Bucket>& buckets = layout.buckets();
  size_t end = begin + 1;
  while (end < buckets.size() && (buckets[end].of_experts || buckets[end].turn % buckets[end].holders.size != 0)) ++end;
  return end;
}

}  // namespace

bool State::saves(int param) const {
  return layout().buckets()[layout().bucket_of(param)].saved_here();
}

// A bucket's weights, or its masters where these are wanted; masters in pieces are gathered on the stack.
Tensor State::whole(Ctx& ctx, size_t b, bool masters) const {
  const Bucket& bucket = layout().buckets()[b];
  const Tensor& own = parts_->masters.bucket(b);
  if (!masters || !own) return parts_->weights.bucket(b);
  if (own.elements() == bucket.elements) return own;
  const Tensor all = ctx.stack.push("master weights to save", {bucket.elements}, own.dtype);
  copy(ctx, own, all.slice(bucket.piece_begin(), bucket.piece()));
  parts_->holders.of(bucket).all_gather(ctx, "master weights", all);
  return all;
}

void State::for_each_saved(Ctx& ctx, bool masters, const std::function<void(std::span<const Saved>)>& visit) const {
  const size_t buckets = layout().buckets().size();
  for (size_t begin = 0, end; begin < buckets; begin = end) {
    end = end_of_round(layout(), begin);
    const Frame frame(ctx);
    std::vector<Saved> saved;
    for (size_t b = begin; b < end; ++b) {
      const Bucket& bucket = layout().buckets()[b];
      if (bucket.is_coded) continue;  // is never saved
      const size_t mark = ctx.stack.mark();
      const Tensor values = whole(ctx, b, masters);
      if (!bucket.saved_here()) {
        ctx.stack.release(mark);
        continue;
      }
      for (int p = bucket.first; p < bucket.last; ++p)
        saved.push_back({p, values.slice(layout().offset(p), spec(p).shape.elements()).view(spec(p).shape)});
    }
    if (!saved.empty()) visit(saved);
  }
}

size_t State::stack_bytes_to_save() const {
  size_t most = 0;
  for (size_t begin = 0, end; begin < layout().buckets().size(); begin = end) {
    end = end_of_round(layout(), begin);
    size_t kept = 0, most_here = 0;
    for (size_t b = begin; b < end; ++b) {
      const Bucket& bucket = layout().buckets()[b];
      const Tensor& masters = parts_->masters.bucket(b);
      if (!masters || masters.elements() == bucket.elements) continue;
      const size_t bytes = align_up(bucket.elements * dtype_size(masters.dtype));
      most_here = std::max(most_here, kept + bytes);
      if (bucket.saved_here()) kept += bytes;
    }
    most = std::max(most, most_here);
  }
  return most;
}

}  // namespace mixtune
