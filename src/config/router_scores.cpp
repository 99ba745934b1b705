#include "config/router_scores.h"

#include <fmt/format.h>

#include "config/config.h"

namespace mixtune {

RouterScores router_scores(const RouterSettings& settings, const RouterScores& own) {
  const ScoreFunction function = settings.moe_router_score_function.value_or(
      own.scoring == Scoring::kSigmoid ? ScoreFunction::kSigmoid : ScoreFunction::kSoftmax);
  const bool pre_softmax = settings.moe_router_pre_softmax.value_or(own.scoring == Scoring::kPreSoftmax);
  return {.scoring = function == ScoreFunction::kSigmoid ? Scoring::kSigmoid
                     : pre_softmax                       ? Scoring::kPreSoftmax
                                                         : Scoring::kSoftmax,
          .scaling = settings.moe_router_topk_scaling_factor.value_or(own.scaling),
          .expert_bias = settings.moe_router_enable_expert_bias.value_or(own.expert_bias)};
}

std::string describe(const RouterScores& scores) {
  const char* const name = scores.scoring == Scoring::kSigmoid      ? "sigmoid"
                           : scores.scoring == Scoring::kPreSoftmax ? "softmax over all experts"
                                                                    : "softmax";
  return fmt::format("{}{}{}", name, scores.expert_bias ? " with an expert bias" : "",
                     scores.scaling == 1 ? "" : fmt::format(", times {}", scores.scaling));
}

bool is_of_transformers(const RouterScores& scores, int64_t k, int64_t experts) {
  const bool sums_to_one =
      scores.scoring == Scoring::kSoftmax || (scores.scoring == Scoring::kPreSoftmax && k == experts);
  return sums_to_one && scores.scaling == 1;
}

}  // namespace mixtune
