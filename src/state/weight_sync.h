// WeightSync: brings the weights that other ranks have updated to this one.
#pragma once

#include <vector>

#include "state/holders.h"
#include "state/storage.h"
#include "tensor/lane.h"

namespace mixtune {

class WeightSync {
 public:
  static constexpr const char* kUpdates = "updated weights";  // as traffic names them

  // All three outlive this. Without a sharded layout each rank updates all weights, and nothing moves.
  WeightSync(const ParamLayout& layout, const Storage& weights, const Holders& holders);

  // Each rank calls begin once it has updated its pieces of all buckets. The others' come beside what the ctx does, a
  // layer ahead of the bucket that await asks for. All ranks call await in the same order of buckets.
  void begin() { ungathered_ = 0; }
  void await(Ctx& ctx, int bucket);
  void await_all(Ctx& ctx);

 private:
  void gather_before(Ctx& ctx, size_t bucket);

  const ParamLayout& layout_;
  const Storage& weights_;
  const Holders& holders_;
  size_t ungathered_;               // the first bucket not yet asked for
  std::vector<LaneMark> gathered_;  // each bucket's weights are there after its mark
};

}  // namespace mixtune
