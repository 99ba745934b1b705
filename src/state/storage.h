// Storage: one kind of what a State holds (weights, masters, gradients, first or second moments), bucket by bucket.
#pragma once

#include <optional>
#include <vector>

#include "state/param_layout.h"
#include "tensor/memory.h"

namespace mixtune {

// What a kind is: of which buckets, how much of each, in which dtype.
struct StorageKind {
  const char* name;
  std::optional<DType> dtype;  // none: each bucket's own
  bool trained_only = true;    // of the trained buckets alone
  bool sharded = false;        // the piece of the bucket that this rank owns; otherwise the whole bucket
  bool beside_narrow = false;  // of those buckets alone whose weights are narrower: fp32 masters
};

class Storage {
 public:
  // Of no bucket.
  explicit Storage(const ParamLayout& layout) : layout_(&layout), buckets_(layout.buckets().size()) {}
  // Zeroed. `layout` and `arena` outlive this.
  Storage(const ParamLayout& layout, const StorageKind& kind, Arena& arena);

  static size_t bytes(const ParamLayout& layout, const StorageKind& kind);

  const Tensor& bucket(size_t b) const { return buckets_[b]; }
  // The parameter as kernels read it; empty where there is none. Not of a sharded kind.
  Tensor part(int param) const;
  // What this rank owns of it: [n], or the whole parameter in its shape where owners have all.
  Tensor owned_part(int param) const;

 private:
  const ParamLayout* layout_;
  bool sharded_ = false;
  std::vector<Tensor> buckets_;
};

}  // namespace mixtune
