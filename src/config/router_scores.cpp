#include "config/router_scores.h"

#include <fmt/format.h>

#include "base/error.h"
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

RouterScores sinkhorn_scores(const Config& config, const RouterScores& own, int64_t experts_per_token) {
  const RouterSettings& settings = config.router;
  const bool sigmoid = experts_per_token == 1;
  const auto refuse_if = [&](bool contradicts, const char* key, std::string_view what, std::string_view mend) {
    if (contradicts) throw UserError(config.where(key), what, mend);
  };
  const RouterScores others = router_scores(settings, own);
  const auto function = sigmoid ? ScoreFunction::kSigmoid : ScoreFunction::kSoftmax;
  const char* const name = sigmoid ? "sigmoid" : "softmax";
  refuse_if(settings.moe_router_score_function.value_or(function) != function, "moe_router_score_function",
            fmt::format("sinkhorn weighs {} by a {}", sigmoid ? "one expert a token" : "several experts a token", name),
            fmt::format("set it to {}", name));
  refuse_if(!sigmoid && !settings.moe_router_pre_softmax.value_or(true), "moe_router_pre_softmax",
            "sinkhorn's weights are of the softmax over all experts", "set it to true");
  refuse_if(others.scaling != 1, "moe_router_topk_scaling_factor",
            fmt::format("is {}, and sinkhorn's weights are not multiplied", others.scaling), "set it to 1");
  refuse_if(others.expert_bias, "moe_router_enable_expert_bias", "a bias and sinkhorn both choose the experts",
            "set it to false, or name another moe_router_load_balancing_type");
  refuse_if(settings.moe_router_force_load_balancing, "moe_router_force_load_balancing",
            "experts that are drawn are not chosen by sinkhorn",
            "set it to false, or name another moe_router_load_balancing_type");
  return {.scoring = sigmoid ? Scoring::kSigmoid : Scoring::kPreSoftmax};
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
