#include "model/expert_bias.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace mixtune {

ExpertBias::ExpertBias(const MixtralConfig& config, Device device) {
  if (config.expert_bias.empty()) return;
  constexpr const char* kPart = "expert bias";
  const Shape shape = {config.num_hidden_layers, config.num_local_experts};
  const size_t bytes = align_up(shape.elements() * sizeof(float));
  MT_CHECK(std::ssize(config.expert_bias) == shape.elements());
  host_arena_.emplace(kPart, Device{}, bytes,
                      device.type == DeviceType::kCuda ? HostMemory::kPinned : HostMemory::kPageable);
  device_arena_.emplace(kPart, device, bytes);
  on_host_ = host_arena_->allocate(kPart, shape, DType::kF32);
  on_device_ = device_arena_->allocate(kPart, shape, DType::kF32);
  std::ranges::copy(config.expert_bias, on_host_.as<float>());
}

std::span<const float> ExpertBias::values() const {
  if (!*this) return {};
  return {on_host_.as<float>(), static_cast<size_t>(on_host_.elements())};
}

std::span<float> ExpertBias::layer(int64_t index) const {
  const Tensor row = on_host_.row(index);
  return {row.as<float>(), static_cast<size_t>(row.elements())};
}

void ExpertBias::move(const std::vector<std::vector<int64_t>>& tokens, double rate) {
  for (size_t l = 0; l < tokens.size(); ++l) {
    const std::span<float> bias = layer(static_cast<int64_t>(l));
    const auto experts = std::ssize(tokens[l]);
    const int64_t all = std::accumulate(tokens[l].begin(), tokens[l].end(), int64_t{0});
    for (int64_t e = 0; e < experts; ++e) {
      const int64_t times = tokens[l][e] * experts;  // exact beside `all`, which is the mean times the experts
      if (times != all) bias[e] += static_cast<float>(times < all ? rate : -rate);
    }
  }
}

std::vector<double> ExpertBias::ranges() const {
  std::vector<double> ranges;
  for (int64_t l = 0; *this && l < on_host_.rows(); ++l) {
    const auto [least, most] = std::ranges::minmax(layer(l));
    ranges.push_back(static_cast<double>(most) - static_cast<double>(least));
  }
  return ranges;
}

}  // namespace mixtune
