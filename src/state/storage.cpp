#include "state/storage.h"

namespace mixtune {

namespace {

using Bucket = ParamLayout::Bucket;

DType dtype_in(const StorageKind& kind, const Bucket& bucket) {
  return kind.dtype.value_or(bucket.dtype);
}

bool has(const StorageKind& kind, const Bucket& bucket) {
  return (bucket.trained || !kind.trained_only) && !bucket.is_coded &&
         (!kind.beside_narrow || dtype_size(bucket.dtype) < dtype_size(dtype_in(kind, bucket)));
}

int64_t elements_in(const StorageKind& kind, const Bucket& bucket) {
  return kind.sharded ? bucket.piece() : bucket.elements;
}

}  // namespace

size_t Storage::bytes(const ParamLayout& layout, const StorageKind& kind) {
  size_t bytes = 0;
  for (const Bucket& bucket : layout.buckets())
    if (has(kind, bucket)) bytes += elements_in(kind, bucket) * dtype_size(dtype_in(kind, bucket));
  return bytes;
}

Storage::Storage(const ParamLayout& layout, const StorageKind& kind, Arena& arena)
    : layout_(&layout), sharded_(kind.sharded) {
  for (const Bucket& bucket : layout.buckets())
    buckets_.push_back(has(kind, bucket) ? arena.allocate(layout.spec(bucket.first).name, {elements_in(kind, bucket)},
                                                          dtype_in(kind, bucket))
                                         : Tensor{});
}

Tensor Storage::part(int param) const {
  MT_CHECK(!sharded_);
  const Tensor& all = buckets_[layout_->bucket_of(param)];
  const Shape& shape = layout_->spec(param).shape;
  return all ? all.slice(layout_->offset(param), shape.elements()).view(shape) : Tensor{};
}

Tensor Storage::owned_part(int param) const {
  if (!sharded_) return part(param);
  const size_t b = layout_->bucket_of(param);
  const ParamLayout::Piece piece = layout_->owned(param);
  const int64_t begin =
      piece.count == 0 ? 0 : layout_->offset(param) + piece.begin - layout_->buckets()[b].piece_begin();
  return buckets_[b] ? buckets_[b].slice(begin, piece.count) : Tensor{};
}

}  // namespace mixtune
