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
      "`seq_aux_loss` (of each document), `global_aux_loss` (of the step's accumulation steps so far), or `none`; "
      "null: `aux_loss`",
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
  table.add("moe_router_topk", &Config::router, &R::moe_router_topk,
            "experts a token goes to, saved as `num_experts_per_tok`; null: as the checkpoint has it",
            {.bounds = {1, 65536}, .nullable = true});
  table.add("moe_router_dtype", &Config::router, &R::moe_router_dtype,
            "`fp32`, in which the router computes whatever the model's precision; null: so too", kNullable);
}

}  // namespace mixtune
