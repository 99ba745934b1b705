// Megatron-LM, Megatron-Core's configurations, and the variables of NCCL that their recipes set.
#include <array>

#include "config/foreign.h"

namespace mixtune {

namespace {

constexpr unsigned kM = kMegatron;
constexpr std::string_view kEnvironment = "not a key: set it in the environment, NCCL reads it there";
constexpr std::string_view kNoCapacity = "not supported yet: no token is ever dropped, whatever an expert gets";
constexpr std::string_view kOverlap = "not needed: exchange and sums run beside compute by themselves";
constexpr std::string_view kPreprocess = "of `mixtune preprocess`";

constexpr std::array kMegatronKeys = {
    ForeignKey{kM, "model_parallel_size", "", kNoPlainSplit},
    ForeignKey{kM | kLlamaFactory, "tensor_model_parallel_size", "", kNoPlainSplit},
    ForeignKey{kM | kLlamaFactory, "pipeline_model_parallel_size", "", kNoPlainSplit},
    ForeignKey{kM | kLlamaFactory, "virtual_pipeline_model_parallel_size", "", kNoPlainSplit},
    ForeignKey{kM, "expert_tensor_parallel_size", "", kNoPlainSplit},
    ForeignKey{kM | kLlamaFactory, "sequence_parallel", "", kNoPlainSplit},
    ForeignKey{kM, "data_parallel_size", "",
               "not needed: ranks / `expert_model_parallel_size`; ranks are `--nproc` or the launcher's"},
    ForeignKey{kM | kLlamaFactory, "use_distributed_optimizer", "zero_stage: 1", "the default"},
    ForeignKey{kM | kLlamaFactory, "overlap_grad_reduce", "", kOverlap},
    ForeignKey{kM | kLlamaFactory, "overlap_param_gather", "", kOverlap},
    ForeignKey{kM, "distributed_timeout_minutes", "collective_timeout", "in seconds"},
    ForeignKey{kM, "num_experts", "", kInConfigJson},
    ForeignKey{kM, "moe_router_topk", "", kInConfigJson},
    ForeignKey{kM, "num_layers", "", kInConfigJson},
    ForeignKey{kM, "hidden_size", "", kInConfigJson},
    ForeignKey{kM, "ffn_hidden_size", "", kInConfigJson},
    ForeignKey{kM, "num_attention_heads", "", kInConfigJson},
    ForeignKey{kM, "max_position_embeddings", "", kInConfigJson},
    ForeignKey{kM, "moe_aux_loss_coeff", "router_aux_loss_coef",
               "another scale: it weighs one loss pooled over the layers, there one for each layer"},
    ForeignKey{kM, "moe_router_load_balancing_type", "router_aux_loss_type", "`huggingface` is the only one yet"},
    ForeignKey{kM, "moe_z_loss_coeff", "", "not supported yet: z-loss"},
    ForeignKey{kM, "moe_token_drop_policy", "", kNoCapacity},
    ForeignKey{kM, "moe_capacity_factor", "", kNoCapacity},
    ForeignKey{kM, "moe_expert_capacity_factor", "", kNoCapacity},
    ForeignKey{kM, "moe_pad_expert_input_to_capacity", "", kNoCapacity},
    ForeignKey{kM | kLlamaFactory, "moe_token_dispatcher_type", "", "not needed: tokens go by all-to-all"},
    ForeignKey{kM | kLlamaFactory, "moe_grouped_gemm", "experts_implementation: grouped", "the default"},
    ForeignKey{kM, "moe_permute_fusion", "", kOwnKernels},
    ForeignKey{kM, "moe_use_overlap", "", kOverlap},
    ForeignKey{kM, "overlap_moe_expert_parallel_comm", "", kOverlap},
    ForeignKey{kM, "tokenizer_model", "tokenizer_name_or_path", "the folder that holds it"},
    ForeignKey{kM, "input", "train_file", kPreprocess},
    ForeignKey{kM, "output_prefix", "", "not a key: `mixtune preprocess` has `--output` and `--output_format indexed`"},
    ForeignKey{kM, "workers", "", kNoWorkers},
    ForeignKey{kM, "partitions", "", kNoWorkers},
    ForeignKey{kM, "append_eod", "", "not needed: documents end with EOS"},
    ForeignKey{kM, "train_iters", "max_steps"},
    ForeignKey{kM, "train_samples", "max_steps", "in steps, not rows"},
    ForeignKey{kM, "lr_decay_style", "lr_scheduler_type"},
    ForeignKey{kM, "min_lr", "lr_scheduler_kwargs",
               "min_lr of `cosine_with_min_lr`; for linear it is lr_end of `polynomial`"},
    ForeignKey{kM, "decoupled_lr", "lr_groups", "of embeddings and of head"},
    ForeignKey{kM, "decoupled_min_lr", "",
               "not supported: a group falls to the share of its peak that the others fall to"},
    ForeignKey{kM, "lr_decay_iters", "", "not needed: the schedule ends with the run"},
    ForeignKey{kM, "lr_decay_samples", "", "not needed: the schedule ends with the run"},
    ForeignKey{kM, "lr_wsd_decay_iters", "lr_scheduler_kwargs", "num_decay_steps of `warmup_stable_decay`"},
    ForeignKey{kM, "lr_wsd_decay_samples", "lr_scheduler_kwargs", "num_decay_steps of `warmup_stable_decay`, in steps"},
    ForeignKey{kM, "lr_wsd_decay_style", "lr_scheduler_kwargs",
               "decay_type: 1-sqrt is minus_sqrt there; exponential must be said"},
    ForeignKey{kM, "lr_warmup_init", "", "not supported: a warm-up begins at 0"},
    ForeignKey{kM, "lr_warmup_fraction", "warmup_ratio"},
    ForeignKey{kM, "lr_warmup_iters", "warmup_steps"},
    ForeignKey{kM, "lr_warmup_samples", "warmup_steps", "in steps, not rows"},
    ForeignKey{kM, "clip_grad", "max_grad_norm"},
    ForeignKey{kM, "adam_eps", "adam_epsilon"},
    ForeignKey{kM, "save", "output_dir"},
    ForeignKey{kM, "load", "model_name_or_path", "a Hugging Face folder, on any layout"},
    ForeignKey{kM, "pretrained_checkpoint", "model_name_or_path", "a Hugging Face folder, on any layout"},
    ForeignKey{kM, "finetune", "", "not needed: a run always starts with fresh optimizer state"},
    ForeignKey{kM, "no_load_optim", "", "not needed: a run always starts with fresh optimizer state"},
    ForeignKey{kM, "save_interval", "save_steps"},
    ForeignKey{kM, "eval_interval", "eval_steps"},
    ForeignKey{kM, "eval_iters", "", "not needed: the whole of the validation data is used"},
    ForeignKey{kM, "log_interval", "logging_steps"},
    ForeignKey{kM, "log_throughput", "",
               "not needed: every step prints tokens a second; `mixtune bench step` prints TFLOP/s"},
    ForeignKey{kM, "tensorboard_dir", "report_to: tensorboard", "the files are in `runs/` of `output_dir`"},
    ForeignKey{kM, "fp8_format", "fp8_scaling", "`block` is E4M3 alone; with `tensor` gradients are E5M2"},
    ForeignKey{kM, "fp8_recipe", "fp8_scaling", "`block` or `tensor`; or `precision: mxfp8`"},
    ForeignKey{kM | kLlamaFactory, "recompute_granularity", "recompute", "`selective` or `full`"},
    ForeignKey{kM | kLlamaFactory, "recompute_method", "recompute"},
    ForeignKey{kM | kLlamaFactory, "recompute_num_layers", "recompute", "all layers, or those that do not fit"},
    ForeignKey{kM, "attention_backend", "", kOwnKernels},
    ForeignKey{kM, "transformer_impl", "", kOwnKernels},
    ForeignKey{kM, "deterministic_mode", "deterministic"},
    ForeignKey{kM, "check_for_nan_in_loss_and_grad", "",
               "not needed: it always is; `skip_nonfinite_steps` goes on after one"},
    ForeignKey{kM, "check_for_spiky_loss", "stop_on_divergence", "without it a warning"},
    ForeignKey{kM, "check_for_large_grads", "", "not needed: a run warns of them"},
    ForeignKey{kM, "NCCL_IB_HCA", "", kEnvironment},
    ForeignKey{kM, "NCCL_IB_GID_INDEX", "", kEnvironment},
    ForeignKey{kM, "NCCL_SOCKET_IFNAME", "", kEnvironment},
    ForeignKey{kM, "NCCL_DEBUG", "", kEnvironment},
    ForeignKey{kM, "NCCL_ALGO", "", kEnvironment},
};

}  // namespace

std::span<const ForeignKey> megatron_keys() {
  return kMegatronKeys;
}

}  // namespace mixtune
