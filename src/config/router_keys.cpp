#include "config/key_builder.h"
#include "config/router_scores.h"

namespace mixtune {

void add_router_keys(KeyTable& table) {
  using R = RouterSettings;
  table.group("Router");
  table.add("router_aux_loss_coef", &Config::router, &R::router_aux_loss_coef,
            "weight of transformers' load-balancing loss; null: the checkpoint's own, 0: off (docs/router.md)",
            {.bounds = {0, 100}, .nullable = true});
  table.add("router_aux_loss_type", &Config::router, &R::router_aux_loss_type,
            "how that loss is computed: `huggingface` pools the layers as transformers does");
  table.add(
      "moe_router_load_balancing_type", &Config::router, &R::moe_router_load_balancing_type,
      "Megatron-Core's load-balancing losses, one or a list: `aux_loss` (of the tokens of an accumulation step), "
      "`seq_aux_loss` (of each document), `global_aux_loss` (of the step's accumulation steps so far), or `none`; or "
      "`sinkhorn`, which is no loss: it chooses experts so that they are balanced (docs/router.md); null: `aux_loss`",
      kNullable);
  table.add("moe_aux_loss_coeff", &Config::router, &R::moe_aux_loss_coeff,
            "their weights, in the same order, instead of `router_aux_loss_coef`; null: there are none", kNullable);
  table.add("moe_z_loss_coeff", &Config::router, &R::moe_z_loss_coeff,
            "weight of the router's z-loss, the mean of `logsumexp(logits)^2` in each layer", {.bounds = {0, 100}});
  table.add("moe_router_score_function", &Config::router, &R::moe_router_score_function,
            "what makes experts' weights of the router's logits; null: the checkpoint's own, `softmax` of Mixtral's",
            kNullable);
  table.add("moe_router_pre_softmax", &Config::router, &R::moe_router_pre_softmax,
            "softmax over all experts, not over the chosen ones; null: the checkpoint's own, false of Mixtral's",
            kNullable);
  table.add("moe_router_topk_scaling_factor", &Config::router, &R::moe_router_topk_scaling_factor,
            "by which experts' weights are multiplied; null: the checkpoint's own, 1 of Mixtral's",
            {.bounds = {kLeastScoreScaling, kMostScoreScaling}, .nullable = true});
  table.add("moe_router_enable_expert_bias", &Config::router, &R::moe_router_enable_expert_bias,
            "experts are chosen by their score and a bias, which balances them without a loss; needs "
            "moe_router_score_function: sigmoid (docs/router.md); null: the checkpoint's own, false of Mixtral's",
            kNullable);
  table.add("moe_router_bias_update_rate", &Config::router, &R::moe_router_bias_update_rate,
            "what a step adds to the bias of an expert that got less than the mean, and takes from one that got more",
            {.bounds = {0, 100}});
  table.add("moe_router_topk", &Config::router, &R::moe_router_topk,
            "experts a token goes to, saved as `num_experts_per_tok`; null: as the checkpoint has it",
            {.bounds = {1, 65536}, .nullable = true});
  table.add("moe_router_dtype", &Config::router, &R::moe_router_dtype,
            "`fp32`, in which the router computes whatever the model's precision; null: so too", kNullable);
  table.add("moe_expert_capacity_factor", &Config::router, &R::moe_expert_capacity_factor,
            "in training, each expert takes at most so many times what it would get of a micro-batch if all got the "
            "same; what is beyond is dropped (docs/router.md); null: nothing is",
            {.bounds = {0, 1e6, Bounds::kOpenLow}, .nullable = true});
  table.add("moe_token_drop_policy", &Config::router, &R::moe_token_drop_policy,
            "which tokens an expert then takes: `probs`, those with the largest routing weights, or `position`, the "
            "earliest");
  table.add("moe_pad_expert_input_to_capacity", &Config::router, &R::moe_pad_expert_input_to_capacity,
            "every expert computes as many rows, those of a full micro-batch; needs moe_expert_capacity_factor");
  table.add("moe_input_jitter_eps", &Config::router, &R::moe_input_jitter_eps,
            "in training, each number of the router's input is multiplied by a random one between 1 - this and 1 + "
            "this; null: it is not",
            {.bounds = {0, 1}, .nullable = true});
  table.add("moe_router_force_load_balancing", &Config::router, &R::moe_router_force_load_balancing,
            "in training, tokens go to experts that are drawn, whatever the router says: to measure speed in balance, "
            "not to train");
}

}  // namespace mixtune
