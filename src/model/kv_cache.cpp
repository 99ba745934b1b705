#include "model/kv_cache.h"

namespace mixtune {

KvCache::KvCache(const MixtralConfig& config, Device device, DType dtype, const CacheRoom& room) : room_(room) {
  const Shape shape = {config.num_hidden_layers * room.sequences, config.num_key_value_heads, room.positions,
                       config.head_dim};
  if (shape.elements() == 0) return;
  arena_.emplace("keys and values", device, 2 * align_up(static_cast<size_t>(shape.elements()) * dtype_size(dtype)));
  keys_ = arena_->allocate("keys", shape, dtype);
  values_ = arena_->allocate("values", shape, dtype);
}

KvCache::Layer KvCache::layer(int64_t index) const {
  MT_CHECK(arena_);
  return {keys_.slice(index * room_.sequences, room_.sequences),
          values_.slice(index * room_.sequences, room_.sequences)};
}

}  // namespace mixtune
