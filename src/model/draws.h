// What is drawn for a layer in training. Each purpose has a key of its own, by that of the layer in its step.
#pragma once

#include <cstdint>

#include "base/random.h"

namespace mixtune {

enum class Draw : uint64_t {
  kJitter,
  kExperts,
  kQkvDropout,
  kOutDropout,
  kGateUpDropout,
  kDownDropout,
  kHeadDropout,
  kRouterDropout
};

constexpr uint64_t draw_key(uint64_t layer, Draw purpose) {
  return random_bits(layer, static_cast<uint64_t>(purpose));
}

}  // namespace mixtune
