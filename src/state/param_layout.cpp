#include "state/param_layout.h"

#include <algorithm>

namespace mixtune {

namespace {

int64_t round_up(int64_t n, int64_t multiple) {
  return static_cast<int64_t>(align_up(static_cast<size_t>(n), static_cast<size_t>(multiple)));
}

void check_blocks(const ParamSpec& spec) {
  int64_t next = 0;
  for (const HfBlock& block : spec.blocks) {
    MT_CHECK(block.offset == next);
    next += block.elements();
  }
  MT_CHECK(next == spec.shape.elements());
}

}  // namespace

Shape HfBlock::stored_shape() const {
  std::array<int64_t, Shape::kMaxRank> dims{};
  for (int dim = 0; dim < shape().rank(); ++dim) dims[dim] = shape()[dim];
  dims[0] -= added;
  return {dims.data(), shape().rank()};
}

int64_t HfBlock::stored_elements() const {
  const int64_t rows = box.shape()[0];
  return rows == 0 ? 0 : elements() / rows * std::clamp<int64_t>(shape()[0] - added - box.begin(0), 0, rows);
}

ParamLayout::ParamLayout(std::vector<ParamSpec> specs, DType dtype, const Copies& copies)
    : specs_(std::move(specs)), copies_(copies) {
  for (int p = 0; p < size(); ++p) {
    check_blocks(specs_[p]);
    MT_CHECK(!specs_[p].is_coded() || !specs_[p].trainable);
    add(p, specs_[p].dtype.value_or(dtype));
  }
  std::array<int, 2> turns{};  // of buckets of dense parameters, of experts
  const Bucket* before = nullptr;
  for (Bucket& bucket : buckets_) {
    bucket.elements = round_up(bucket.elements, kElementAlignment * bucket.holders.size);
    const bool shares_turn = before && before->origin == ParamSpec::Origin::kInitialised &&
                             before->origin == bucket.origin && before->place == bucket.place &&
                             before->of_experts == bucket.of_experts;
    bucket.turn = shares_turn ? before->turn : turns[bucket.of_experts]++;
    before = &bucket;
  }
}

void ParamLayout::add(int param, DType dtype) {
  const ParamSpec& spec = specs_[param];
  const auto continues = [&](const Bucket& bucket) {
    return bucket.place == spec.place && bucket.of_experts == spec.of_experts && bucket.trained == spec.trainable &&
           bucket.is_coded == spec.is_coded() && bucket.origin == spec.origin && bucket.dtype == dtype;
  };
  if (buckets_.empty() || !continues(buckets_.back()))
    buckets_.push_back({.first = param,
                        .last = param,
                        .trained = spec.trainable,
                        .of_experts = spec.of_experts,
                        .is_coded = spec.is_coded(),
                        .origin = spec.origin,
                        .dtype = dtype,
                        .place = spec.place,
                        .holders = spec.of_experts ? copies_.experts : copies_.dense});
  Bucket& bucket = buckets_.back();
  bucket_of_.push_back(static_cast<int>(buckets_.size()) - 1);
  offset_.push_back(bucket.elements);
  bucket.last = param + 1;
  bucket.elements += round_up(spec.shape.elements(), kElementAlignment);
}

int64_t ParamLayout::elements() const {
  int64_t n = 0;
  for (const ParamSpec& spec : specs_) n += spec.shape.elements();
  return n;
}

int64_t ParamLayout::all_elements() const {
  int64_t n = elements();
  for (const ParamSpec& spec : specs_)
    for (const HfBlock& block : spec.elsewhere) n += block.elements();
  return n;
}

ParamLayout::Piece ParamLayout::owned(int param) const {
  return copies_.sharded ? counted(param) : Piece{0, specs_[param].shape.elements()};
}

ParamLayout::Piece ParamLayout::counted(int param) const {
  const Bucket& bucket = buckets_[bucket_of_[param]];
  const int64_t elements = specs_[param].shape.elements(), piece_begin = bucket.piece_begin() - offset_[param];
  const int64_t begin = std::clamp<int64_t>(piece_begin, 0, elements),
                end = std::clamp<int64_t>(piece_begin + bucket.piece(), 0, elements);
  return {begin, end - begin};
}

}  // namespace mixtune
