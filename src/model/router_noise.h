// RouterNoise: what a training draws for its routers (docs/router.md).
#pragma once

namespace mixtune {

struct RouterNoise {
  double jitter = 0;           // their input is multiplied by factors between 1 - this and 1 + this
  bool draws_experts = false;  // in the place of their choice
};

}  // namespace mixtune
