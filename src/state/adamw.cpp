#include "state/adamw.h"

#include <algorithm>
#include <cmath>

#include "kernels/optimizer.h"

namespace mixtune {

double gradient_norm(Ctx& ctx, State& state) {
  double squares = 0;
  for (int p = 0; p < state.size(); ++p)
    if (const Tensor gradient = state.finished_gradient(p)) squares += sum_of_squares(ctx, gradient);
  return std::sqrt(squares);
}

void adamw_step(Ctx& ctx, State& state, const OptimizerSettings& settings, const OptimizerStep& args) {
  for (int p = 0; p < state.size(); ++p) {
    const Tensor gradient = state.finished_gradient(p);
    if (!gradient) continue;
    const bool decays = state.spec(p).slices.front().shape.rank() >= 2;
    adamw(ctx, {.weight = state.weight(p),
                .grad = gradient,
                .m = state.first_moment(p),
                .v = state.second_moment(p),
                .grad_scale = args.grad_scale,
                .learning_rate = args.learning_rate,
                .beta1 = settings.adam_beta1,
                .beta2 = settings.adam_beta2,
                .epsilon = settings.adam_epsilon,
                .weight_decay = decays ? settings.weight_decay : 0,
                .step = args.step});
  }
}

double clip_scale(double norm, double max_norm) {
  return max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0;
}

}  // namespace mixtune
