#include "model/instance.h"

namespace mixtune {

namespace {

// State's pages are not taken yet, so they are still counted as available. A little is left to everything else.
size_t what_is_left(const State& state, Device device) {
  const size_t available = available_memory(device);
  return available > state.bytes() ? (available - state.bytes()) / 100 * 95 : 1;
}

}  // namespace

Instance::Instance(const MixtralConfig& config, Device device, DType dtype, State::Purpose purpose, size_t stack_bytes)
    : Instance(config, make_layout(config), device, dtype, purpose, stack_bytes) {}

Instance::Instance(const MixtralConfig& config, ModelLayout layout, Device device, DType dtype, State::Purpose purpose,
                   size_t stack_bytes)
    : state_(std::move(layout.specs), device, dtype, purpose),
      recipe_(make_plain_recipe()),
      dispatcher_(make_local_dispatcher(config.num_local_experts)),
      model_(config, layout.params, state_, *recipe_, *dispatcher_),
      stack_("activations", device, stack_bytes > 0 ? stack_bytes : what_is_left(state_, device)),
      ctx_{device, stack_} {}

}  // namespace mixtune
