#include "train/operand_report.h"

#include <algorithm>
#include <array>
#include <bit>
#include <iterator>

#include "kernels/eight_bit/operand_health.h"
#include "metrics/fields.h"

namespace mixtune {

namespace {

// The products in the order of kOperandFields.
constexpr std::array kProducts = {&LayerParams::qkv, &LayerParams::attention_out, &LayerParams::gate_up,
                                  &LayerParams::down};
static_assert(std::size(kOperandFields) == kProducts.size() * kOperandRoles);

double share(int64_t part, int64_t all) {
  return all > 0 ? static_cast<double>(part) / static_cast<double>(all) : 0;
}

}  // namespace

OperandReport::OperandReport(Instance& instance) : instance_(instance), losses_(std::size(kOperandFields)) {
  const Shape shape = {instance.ranks().all->size(), instance.state().size(), kOperandRoles, kHealthNumbers};
  const size_t bytes = align_up(static_cast<size_t>(shape.elements()) * sizeof(int64_t));
  device_arena_.emplace("tallies of operands", instance.ctx().device, bytes);
  host_arena_.emplace("tallies of operands", Device{}, bytes, instance.host_memory());
  tallies_ = device_arena_->allocate("tallies of operands", shape, DType::kI64);
  host_ = host_arena_->allocate("tallies of operands", shape, DType::kI64);
  for (OperandLoss& loss : losses_) loss.amax.resize(instance.model().params().layers.size());
}

void OperandReport::begin() {
  const Tensor own = of_rank(instance_.ranks().all->rank());
  zero(instance_.ctx(), own);
  instance_.watch(own);
  begun_ = true;
}

const std::vector<OperandLoss>* OperandReport::read() {
  instance_.watch({});
  if (!begun_) return nullptr;
  begun_ = false;
  Ctx& ctx = instance_.ctx();
  instance_.ranks().all->all_gather(ctx, "tallies of operands", tallies_);
  copy(ctx, tallies_, host_);
  wait(ctx);
  add_up();
  return &losses_;
}

// Ranks that have the same weight count it alike, so its shares are those of one.
void OperandReport::add_up() {
  const std::vector<LayerParams>& layers = instance_.model().params().layers;
  for (size_t i = 0; i < losses_.size(); ++i) {
    std::array<int64_t, kHealthNumbers> sums = {};
    for (size_t l = 0; l < layers.size(); ++l) {
      const int param = layers[l].*kProducts[i / kOperandRoles];
      int64_t amax = 0;
      for (int64_t rank = 0; rank < host_.rows(); ++rank) {
        const auto* tally = host_.row(rank).row(param).row(i % kOperandRoles).as<int64_t>();
        for (const int number : {kHealthValues, kHealthFlushed, kHealthSaturated}) sums[number] += tally[number];
        amax = std::max(amax, tally[kHealthAmax]);
      }
      losses_[i].amax[l] = std::bit_cast<float>(static_cast<uint32_t>(amax));
    }
    losses_[i].flushed = share(sums[kHealthFlushed], sums[kHealthValues]);
    losses_[i].saturated = share(sums[kHealthSaturated], sums[kHealthValues]);
  }
}

}  // namespace mixtune
