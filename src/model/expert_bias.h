// ExpertBias: what is added to each expert's score to choose by (docs/router.md), on the host and on the device.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "model/mixtral_config.h"
#include "tensor/ctx.h"

namespace mixtune {

class ExpertBias {
 public:
  // Of config.expert_bias; none where that is empty.
  ExpertBias(const MixtralConfig& config, Device device);

  explicit operator bool() const { return static_cast<bool>(on_device_); }
  std::span<const float> values() const;
  // [L, E] fp32, as upload() puts it there; empty: none.
  const Tensor& on_device() const { return on_device_; }
  // Puts the values on the device, in the order of its stream. Between two calls the device is waited for.
  void upload(Ctx& ctx) const { copy(ctx, on_host_, on_device_); }

  // Of a step's tokens of each expert, [L][E], as Megatron-Core does: adds `rate` where they are fewer than the layer's
  // mean, takes it where they are more. The same tokens give the same bias on all ranks.
  void move(const std::vector<std::vector<int64_t>>& tokens, double rate);
  // Of each layer, the largest minus the smallest. Empty: none.
  std::vector<double> ranges() const;

 private:
  std::span<float> layer(int64_t index) const;

  std::optional<Arena> host_arena_, device_arena_;
  Tensor on_host_, on_device_;
};

}  // namespace mixtune
