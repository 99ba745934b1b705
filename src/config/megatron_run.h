// What Megatron-LM's arguments say of a run, in our keys.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "config/load.h"
#include "config/megatron_arguments.h"

namespace mixtune {

struct MegatronRun {
  std::vector<OtherSetting> settings;

  // What the model's config.json must have at `key`; at "!KEY" the opposite.
  struct Shape {
    std::string key, value, where;
  };
  std::vector<Shape> shape;

  // The coefficient of a loss in each layer. Of the one that is pooled over the layers, as router_aux_loss_coef has it,
  // it is this times the layers, by the experts of a token: where layers are alike, both pull as hard.
  struct AuxLoss {
    double coefficient;
    std::string where;
  };
  std::optional<AuxLoss> aux_loss;

  // What became of each argument, "--lr 1e-5 -> learning_rate: 1e-5", and what differs where there is none.
  std::vector<std::string> lines;
};

// Throws UserError with a line for each argument that is refused: for what mixtune lacks, or takes otherwise.
MegatronRun translate(std::span<const MegatronArgument> arguments);

}  // namespace mixtune
