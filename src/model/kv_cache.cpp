#include "model/kv_cache.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/log.h"

namespace mixtune {

namespace {

// The host's pages are taken when they are first written, and its cache may be larger than what is free.
void check_room(const CacheRoom& room, Device device, size_t bytes) {
  if (device.type == DeviceType::kCpu) return;
  const size_t free = available_memory(device);
  if (bytes > free)
    throw Error("out of memory",
                fmt::format("keys and values of {} x {} tokens take {}, and beside the model {} of the GPU are free",
                            room.sequences, room.positions, format_bytes(bytes), format_bytes(free)),
                "continue fewer texts or tokens (--batch, --max-new-tokens; of a conversation --max-length), or spread "
                "the model over more GPUs");
}

}  // namespace

KvCache::KvCache(const MixtralConfig& config, Device device, DType dtype, const CacheRoom& room) : room_(room) {
  const Shape shape = {config.num_hidden_layers * room.sequences, config.num_key_value_heads, room.positions,
                       config.head_dim};
  if (shape.elements() == 0) return;
  const size_t bytes = 2 * align_up(static_cast<size_t>(shape.elements()) * dtype_size(dtype));
  check_room(room, device, bytes);
  arena_.emplace("keys and values", device, bytes);
  keys_ = arena_->allocate("keys", shape, dtype);
  values_ = arena_->allocate("values", shape, dtype);
}

KvCache::Layer KvCache::layer(int64_t index) const {
  MT_CHECK(arena_);
  return {keys_.slice(index * room_.sequences, room_.sequences),
          values_.slice(index * room_.sequences, room_.sequences)};
}

}  // namespace mixtune
