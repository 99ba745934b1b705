#include "state/state.h"

#include <fmt/format.h>

#include <cstring>

#include "base/log.h"

namespace mixtune {

namespace {

void check_slices(const ParamSpec& spec) {
  int64_t next = 0;
  for (const HfSlice& slice : spec.slices) {
    MT_CHECK(slice.offset == next && slice.begin >= 0 && slice.begin + slice.rows <= slice.shape[0]);
    next += slice.elements();
  }
  MT_CHECK(next == spec.shape.elements());
}

}  // namespace

State::State(std::vector<ParamSpec> specs, Device device, DType dtype, Purpose purpose)
    : specs_(std::move(specs)), dtype_(dtype), device_(device), written_(specs_.size(), false) {
  size_t all = 0, trained = 0;
  for (const ParamSpec& spec : specs_) {
    check_slices(spec);
    const size_t bytes = align_up(spec.shape.elements() * dtype_size(dtype));
    all += bytes;
    if (spec.trainable && purpose == Purpose::kTraining) trained += bytes;
  }
  if (const size_t needed = all + 3 * trained, available = available_memory(device); needed > available)
    throw UserError("out of memory",
                    fmt::format("the model needs {} ({}), {} are available", format_bytes(needed),
                                trained > 0 ? "weights, gradients and moments" : "weights", format_bytes(available)),
                    "use a smaller model or a machine with more memory");
  const auto fill = [&](const char* name, size_t bytes, std::vector<Tensor>& tensors, bool for_training) {
    Arena& arena = add_arena(name, bytes);
    for (const ParamSpec& spec : specs_) {
      const bool wanted = !for_training || (spec.trainable && purpose == Purpose::kTraining);
      tensors.push_back(wanted ? arena.allocate(spec.name, spec.shape, dtype) : Tensor{});
    }
  };
  fill("weights", all, weights_, false);
  fill("gradients", trained, gradients_, true);
  fill("first moments", trained, first_moments_, true);
  fill("second moments", trained, second_moments_, true);
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

Tensor State::finished_gradient(int param) {
  const Tensor gradient = gradients_[param];
  if (gradient && !written_[param]) {
    std::memset(gradient.data, 0, gradient.bytes());
    written_[param] = true;
  }
  return gradient;
}

}  // namespace mixtune
