// Learning-rate schedules, as transformers' get_scheduler has them.
#pragma once

#include <string>

#include "config/config.h"

namespace mixtune {

// warmup_steps where it is set, else ceil(warmup_ratio * total_steps).
int64_t warmup_steps(const OptimizerSettings& settings, int64_t total_steps);

// The share of its peak that a learning rate is in `step`, counted from 0, of `total_steps`. With s the step, w the
// warm-up, p = (s - w) / (total - w) and C(p) = (1 + cos(2 pi num_cycles p)) / 2, and s / w below w but where it is
// said:
//   constant                   1, from the first step on
//   constant_with_warmup       1
//   linear                     1 - p
//   cosine                     C(p), with num_cycles 1/2
//   cosine_with_min_lr         m + (1 - m) C(p), m = min_lr_rate, or min_lr / learning_rate
//   cosine_warmup_with_min_lr  the same with p one step ahead; below w (s + 1) / w, or linear from warmup_lr_rate to 1
//   cosine_with_restarts       (1 + cos(pi frac(num_cycles p))) / 2
//   inverse_sqrt               1 / sqrt((s - w + t) / t), t = timescale, or w, or 10000
//   polynomial                 e + (1 - e) (1 - p)^power, e = lr_end / learning_rate
//   warmup_stable_decay        below w as warmup_type says, from min_lr_ratio; 1 for num_stable_steps, or what is left;
//                              for num_decay_steps as decay_type says, to min_lr_ratio; then that
// Settings have been checked (config/schedule_kwargs.h).
double share_of_peak(const OptimizerSettings& settings, int64_t step, int64_t total_steps);
// The same times learning_rate.
double learning_rate(const OptimizerSettings& settings, int64_t step, int64_t total_steps);

// Throws UserError where the stages of warmup_stable_decay are longer than the run of `total_steps`; returns a warning
// where they are shorter, otherwise "".
[[nodiscard]] std::string check_stages(const Config& config, int64_t total_steps);

}  // namespace mixtune
