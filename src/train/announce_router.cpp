#include "train/announce_router.h"

#include <fmt/format.h>

#include "base/log.h"

namespace mixtune {

namespace {

std::string origin(const Config& config, RouterLossType type, const MixtralConfig& shape) {
  if (type != RouterLossType::kHuggingface) return fmt::format("in each of {} layers", shape.num_hidden_layers);
  const bool set = config.router.router_aux_loss_coef || !config.router.moe_aux_loss_coeff.empty() ||
                   !config.router.moe_router_load_balancing_type.empty();
  return set ? "from the configuration" : "the checkpoint's own";
}

// One loss pooled over L layers pulls each of them 1 / L as hard, and is k where Megatron-Core's is 1.
void warn_of_carried_over(const Config& config, double coefficient, const MixtralConfig& shape) {
  const double times = static_cast<double>(shape.num_hidden_layers) / static_cast<double>(shape.num_experts_per_tok);
  if (coefficient != shape.router_aux_loss_coef || times == 1) return;
  log_warning(
      "{}: {} is the checkpoint's router_aux_loss_coef, the weight of a loss that is pooled over the layers; of a loss "
      "in each layer it pulls {:.3g} times as hard, and {:.3g} about as hard (docs/router.md)",
      config.where("moe_aux_loss_coeff"), coefficient, times, coefficient / times);
}

// "sigmoid, times 2.5; 2 of 8 experts a token"
std::string describe_scores(const MixtralConfig& shape) {
  return fmt::format("{}; {} of {} experts a token", describe(shape.router_scores), shape.num_experts_per_tok,
                     shape.num_local_experts);
}

void announce_scores(const Config& config, const MixtralConfig& shape) {
  const bool is_transformers =
      is_of_transformers(shape.router_scores, shape.num_experts_per_tok, shape.num_local_experts);
  if (config.router.sets_scores() || !is_transformers) log_info("router scores: {}", describe_scores(shape));
  if (!is_transformers) log_warning("{}", kUnknownToTransformers);
  if (constexpr const char* kRate = "moe_router_bias_update_rate";
      config.origins.contains(kRate) && !shape.router_scores.expert_bias)
    log_warning("{}: no effect, as experts have no bias (moe_router_enable_expert_bias)", config.where(kRate));
}

// Of what is of this training alone.
void warn_of_capacity(const Config& config) {
  if (const auto factor = config.router.moe_expert_capacity_factor)
    log_warning(
        "{}: {}: tokens beyond an expert's capacity are dropped in training alone; evaluation, generation and "
        "transformers, whose models have no capacity, compute all",
        config.where("moe_expert_capacity_factor"), *factor);
}

void warn_of_drawn_experts(const Config& config) {
  if (config.router.moe_router_force_load_balancing)
    log_warning(
        "{}: in training tokens go to experts that are drawn, not to those that the router chooses: that is for "
        "measuring speed, and what is trained so is of no use",
        config.where("moe_router_force_load_balancing"));
}

void warn_of_sinkhorn(const Config& config) {
  if (uses_sinkhorn(config.router))
    log_warning(
        "{}: sinkhorn: in training experts are chosen by what tokens share a rank's micro-batch, so that results "
        "depend on the layout; evaluation and generation choose by scores alone",
        config.where("moe_router_load_balancing_type"));
}

// "sinkhorn, z 0.001"
std::string balance_str(const Config& config, const RouterLosses& losses) {
  const std::string trained = megatron_losses_str(losses);
  if (!uses_sinkhorn(config.router)) return trained;
  return trained == "none" ? "sinkhorn" : fmt::format("sinkhorn, {}", trained);
}

}  // namespace

Contract contract_of_router(const Config& config, const RouterLosses& losses, const MixtralConfig& shape) {
  return {{"router_aux_loss_coef", fmt::format("{}", losses[RouterLossType::kHuggingface].value_or(0))},
          {"router_losses", balance_str(config, losses)},
          {"router_scores", describe_scores(shape)}};
}

void announce_router(const Config& config, const RouterLosses& losses, const MixtralConfig& shape) {
  announce_scores(config, shape);
  for (int64_t i = 0; i < kRouterLossTypes; ++i) {
    const auto type = static_cast<RouterLossType>(i);
    if (!losses[type]) continue;
    log_info("router loss: {}, coefficient {} ({})", name_of(type), *losses[type], origin(config, type, shape));
    if (type != RouterLossType::kHuggingface && type != RouterLossType::kZ)
      warn_of_carried_over(config, *losses[type], shape);
  }
  warn_of_capacity(config);
  warn_of_drawn_experts(config);
  warn_of_sinkhorn(config);
}

}  // namespace mixtune
