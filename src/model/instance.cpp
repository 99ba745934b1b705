#include "model/instance.h"

namespace mixtune {

Instance::Instance(const MixtralConfig& config, Device device, DType dtype, State::Purpose purpose, size_t stack_bytes)
    : Instance(config, make_layout(config), device, dtype, purpose, stack_bytes) {}

Instance::Instance(const MixtralConfig& config, ModelLayout layout, Device device, DType dtype, State::Purpose purpose,
                   size_t stack_bytes)
    : state_(std::move(layout.specs), device, dtype, purpose),
      recipe_(make_plain_recipe()),
      dispatcher_(make_local_dispatcher(config.num_local_experts)),
      model_(config, layout.params, state_, *recipe_, *dispatcher_),
      stack_("activations", device, stack_bytes > 0 ? stack_bytes : available_memory(device)),
      ctx_{device, stack_} {}

}  // namespace mixtune
