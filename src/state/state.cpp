#include "state/state.h"

#include <fmt/format.h>

#include "base/log.h"
#include "kernels/cast.h"

namespace mixtune {

namespace {

std::string_view mend(const StateTypes& types, Device device, bool training) {
  if (device.type == DeviceType::kCuda && types.weights == DType::kF32)
    return "set precision: bf16, or use a smaller model or a GPU with more memory";
  if (device.type == DeviceType::kCuda && training)
    return "set optimizer_state_dtype: bf16, master_weights: none or gradient_dtype: bf16 ('mixtune estimate' shows "
           "what each needs), or use a GPU with more memory";
  return "use a smaller model or a device with more memory";
}

void check_slices(const ParamSpec& spec) {
  int64_t next = 0;
  for (const HfSlice& slice : spec.slices) {
    MT_CHECK(slice.offset == next && slice.begin >= 0 && slice.begin + slice.rows <= slice.shape[0]);
    next += slice.elements();
  }
  MT_CHECK(next == spec.shape.elements());
}

}  // namespace

State::State(std::vector<ParamSpec> specs, Device device, const StateTypes& types, Purpose purpose)
    : specs_(std::move(specs)), types_(types), device_(device), purpose_(purpose), written_(specs_.size(), false) {
  const bool training = is_training();
  const auto is_wanted = [&](const ParamSpec& spec, bool for_training) {
    return !for_training || (spec.trainable && training);
  };
  const auto total = [&](DType dtype, bool for_training) {
    size_t bytes = 0;
    for (const ParamSpec& spec : specs_)
      if (is_wanted(spec, for_training)) bytes += align_up(spec.shape.elements() * dtype_size(dtype));
    return bytes;
  };
  const bool masters = types.masters && types.weights != DType::kF32;
  for (const ParamSpec& spec : specs_) check_slices(spec);
  const size_t weights = total(types.weights, false), gradients = total(types.gradients, true),
               moments = total(types.moments, true), master = masters ? total(DType::kF32, true) : 0;
  if (const size_t needed = weights + gradients + 2 * moments + master, available = available_memory(device);
      needed > available)
    throw UserError(
        "out of memory",
        training ? fmt::format("weights ({}), masters ({}), gradients ({}) and moments ({}) need {}, {} are available",
                               format_bytes(weights), format_bytes(master), format_bytes(gradients),
                               format_bytes(2 * moments), format_bytes(needed), format_bytes(available))
                 : fmt::format("the weights need {}, {} are available", format_bytes(needed), format_bytes(available)),
        mend(types, device, training));
  const auto fill = [&](const char* name, size_t bytes, std::vector<Tensor>& tensors, DType dtype, bool for_training) {
    Arena& arena = add_arena(name, bytes);
    for (const ParamSpec& spec : specs_)
      tensors.push_back(is_wanted(spec, for_training) ? arena.allocate(spec.name, spec.shape, dtype) : Tensor{});
  };
  fill("weights", weights, weights_, types.weights, false);
  if (masters)
    fill("master weights", master, masters_, DType::kF32, true);
  else
    masters_.resize(specs_.size());
  fill("gradients", gradients, gradients_, types.gradients, true);
  fill("first moments", moments, first_moments_, types.moments, true);
  fill("second moments", moments, second_moments_, types.moments, true);
}

Arena& State::add_arena(const char* name, size_t bytes) {
  return *arenas_.emplace_back(std::make_unique<Arena>(name, device_, bytes));
}

int64_t State::elements() const {
  int64_t n = 0;
  for (const ParamSpec& spec : specs_) n += spec.shape.elements();
  return n;
}

size_t State::bytes() const {
  size_t sum = 0;
  for (const auto& arena : arenas_) sum += arena->used();
  return sum;
}

// Weights live on the device all the time: nothing to fetch, nothing to give back.
Tensor State::get(int param) {
  return weights_[param];
}
void State::release(int) {}

State::Gradient State::gradient(int param) {
  return {gradients_[param], written_[param]};
}

void State::notify(int param) {
  MT_CHECK(gradients_[param]);
  written_[param] = true;
}

void State::begin_step() {
  written_.assign(written_.size(), false);
}

void State::publish(Ctx& ctx, int param) {
  if (masters_[param]) cast(ctx, masters_[param], weights_[param]);
}

Tensor State::finished_gradient(Ctx& ctx, int param) {
  const Tensor gradient = gradients_[param];
  if (gradient && !written_[param]) {
    zero(ctx, gradient);
    written_[param] = true;
  }
  return gradient;
}

}  // namespace mixtune
