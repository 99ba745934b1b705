// KvCache: the keys and values of all tokens that sequences have had, so that their next ones are computed alone.
#pragma once

#include <optional>

#include "model/mixtral_config.h"
#include "tensor/memory.h"

namespace mixtune {

struct CacheRoom {
  int64_t sequences = 0, positions = 0;  // of each; 0: nothing is cached
};

class KvCache {
 public:
  // Takes memory for all layers at once, and throws Error where a GPU has not so much: what it holds of a sequence is
  // the caller's to know (Batch::positions).
  KvCache(const MixtralConfig& config, Device device, DType dtype, const CacheRoom& room);

  // Of one layer, [sequences, kv heads, positions, head_dim] each.
  struct Layer {
    Tensor keys, values;
  };
  Layer layer(int64_t index) const;
  size_t bytes() const { return arena_ ? arena_->used() : 0; }

 private:
  CacheRoom room_;
  std::optional<Arena> arena_;
  Tensor keys_, values_;  // [layers * sequences, kv heads, positions, head_dim]
};

}  // namespace mixtune
