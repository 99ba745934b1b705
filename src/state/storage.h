// Storage: one kind of what a State holds (weights, masters, gradients, first or second moments), bucket by bucket.
#pragma once

#include <optional>
#include <vector>

#include "state/param_layout.h"
#include "tensor/memory.h"

namespace mixtune {

// A kind: which buckets it has, how much of each, in which dtype.
struct StorageKind {
  const char* name;
  std::optional<DType> dtype;  // none: each bucket's own
  bool trained_only = true;    // has the trained buckets alone
  bool sharded = false;        // has this rank's piece of each bucket; false: the whole bucket
  bool beside_narrow = false;  // has only the buckets whose weights are narrower (fp32 masters)
};

class Storage {
 public:
  // Has no bucket.
  explicit Storage(const ParamLayout& layout) : layout_(&layout), buckets_(layout.buckets().size()) {}
  // Its tensors are zero at first. `layout` and `arena` outlive this.
  Storage(const ParamLayout& layout, const StorageKind& kind, Arena& arena);

  static size_t bytes(const ParamLayout& layout, const StorageKind& kind);

  const Tensor& bucket(size_t b) const { return buckets_[b]; }
  // The parameter as kernels read it; empty where there is none. The kind is not sharded.
  Tensor part(int param) const;
  // What this rank owns of the parameter: [n] of a sharded kind, otherwise the whole parameter in its shape.
  Tensor owned_part(int param) const;

 private:
  const ParamLayout* layout_;
  bool sharded_ = false;
  std::vector<Tensor> buckets_;
};

}  // namespace mixtune
