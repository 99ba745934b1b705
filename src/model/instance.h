// A model with everything it stands on: weights, recipe, dispatcher, activation stack.
#pragma once

#include <memory>

#include "model/mixtral.h"

namespace mixtune {

class Instance {
 public:
  // Weights are zero until they are loaded or initialised. stack_bytes 0: what the device has left beside State.
  Instance(const MixtralConfig& config, Device device, DType dtype, State::Purpose purpose, size_t stack_bytes = 0);

  State& state() { return state_; }
  const State& state() const { return state_; }
  const Mixtral& model() const { return model_; }
  Ctx& ctx() { return ctx_; }

 private:
  Instance(const MixtralConfig& config, ModelLayout layout, Device device, DType dtype, State::Purpose purpose,
           size_t stack_bytes);

  State state_;
  std::unique_ptr<Recipe> recipe_;
  std::unique_ptr<Dispatcher> dispatcher_;
  Mixtral model_;
  Stack stack_;
  Ctx ctx_;
};

}  // namespace mixtune
