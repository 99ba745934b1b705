// State::Parts: the members of a State, for the files that implement it.
#pragma once

#include "state/coded_weights.h"
#include "state/state.h"

namespace mixtune {

struct State::Parts {
  Parts(std::vector<ParamSpec> specs, Device device, const StateTypes& types, Purpose purpose,
        const Replicas& replicas);
  Parts(const Parts&) = delete;
  Parts& operator=(const Parts&) = delete;

  StateTypes types;
  Device device;
  Purpose purpose;
  Holders holders;
  ParamLayout layout;
  std::vector<std::unique_ptr<Arena>> arenas;
  int64_t changes = 0, trainings = 0;  // of all weights; of trained ones
  Storage weights, masters, gradients, first_moments, second_moments;
  CodedWeights coded;
  GradientSync gradient_sync{layout, gradients, holders};
  WeightSync weight_sync{layout, weights, holders};
};

}  // namespace mixtune
