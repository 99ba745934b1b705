// Learning-rate schedules, as transformers' get_scheduler has them.
#pragma once

#include "config/config.h"

namespace mixtune {

// warmup_steps where it is set, else ceil(warmup_ratio * total_steps).
int64_t warmup_steps(const OptimizerSettings& settings, int64_t total_steps);

// The learning rate of `step`, counted from 0, of `total_steps`. With s the step and w the warm-up:
//   constant              1
//   constant_with_warmup  min(1, s / w)
//   linear                s / w, then (total - s) / (total - w)
//   cosine                s / w, then (1 + cos(pi (s - w) / (total - w))) / 2
// times learning_rate.
double learning_rate(const OptimizerSettings& settings, int64_t step, int64_t total_steps);

}  // namespace mixtune
