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

  // What became of each argument, "--lr 1e-5 -> learning_rate: 1e-5", and what differs where there is none.
  std::vector<std::string> lines;
};

// Throws UserError with a line for each argument that is refused: for what mixtune lacks, or takes otherwise.
MegatronRun translate(std::span<const MegatronArgument> arguments);

}  // namespace mixtune
