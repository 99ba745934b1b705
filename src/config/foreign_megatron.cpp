// Megatron-LM, Megatron-Core's configurations, and the variables of NCCL that their recipes set.
#include <algorithm>
#include <vector>

#include "config/megatron_flags.h"

namespace mixtune {

namespace {

using Take = MegatronFlag::Take;

constexpr unsigned kM = kMegatron;
constexpr std::string_view kEnvironment = "not a key: set it in the environment, NCCL reads it there";
constexpr std::string_view kOverlap = "not needed: exchange and sums run beside compute by themselves";
constexpr std::string_view kPreprocess = "of `mixtune preprocess`";
constexpr std::string_view kOneProgram =
    "not needed: mixtune is one native program; `mixtune doctor` says what it finds";

constexpr MegatronFlag kFlags[] = {
    // The layout of ranks
    {{kM, "model_parallel_size", "",
      "not supported: it is tensor_model_parallel_size there; only experts are split over ranks"},
     Take::kOnly,
     "1"},
    {{kM | kLlamaFactory, "tensor_model_parallel_size", "", kNoPlainSplit}, Take::kOnly, "1"},
    {{kM | kLlamaFactory, "pipeline_model_parallel_size", "", kNoPlainSplit}, Take::kOnly, "1"},
    {{kM | kLlamaFactory, "virtual_pipeline_model_parallel_size", "", kNoPlainSplit}, Take::kOnly, "1"},
    {{kM, "expert_tensor_parallel_size", "", kNoPlainSplit}, Take::kOnly, "1"},
    {{0, "context_parallel_size", ""}, Take::kOnly, "1"},
    {{0, "expert_model_parallel_size", ""}, Take::kKey},
    {{kM | kLlamaFactory, "sequence_parallel", "", kNoPlainSplit}, Take::kOnly, "false"},
    {{kM, "data_parallel_size", "",
      "not needed: ranks / `expert_model_parallel_size`; ranks are `--nproc` or the launcher's"},
     Take::kNothing},
    {{kM | kLlamaFactory, "use_distributed_optimizer", "zero_stage: 1", "the default"}, Take::kKey},
    {{kM | kLlamaFactory, "overlap_grad_reduce", "", kOverlap}, Take::kSwitch},
    {{kM | kLlamaFactory, "overlap_param_gather", "", kOverlap}, Take::kSwitch},
    {{kM, "distributed_timeout_minutes", "collective_timeout", "in seconds"}, Take::kCombined},
    {{kM, "distributed_backend", "", "not needed: NCCL on GPUs, TCP on CPUs"}, Take::kOnly, "nccl"},
    {{kM, "use_torch_fsdp2", "", "not supported: `zero_stage` is of the optimizer's state alone"},
     Take::kOnly,
     "false"},
    {{kM, "use_megatron_fsdp", "", "not supported: `zero_stage` is of the optimizer's state alone"},
     Take::kOnly,
     "false"},
    // The model's shape
    {{kM, "num_experts", "", kInConfigJson}, Take::kShape, "num_local_experts"},
    {{kM, "num_layers", "", kInConfigJson}, Take::kShape, "num_hidden_layers"},
    {{kM, "hidden_size", "", kInConfigJson}, Take::kShape, "hidden_size"},
    {{kM, "ffn_hidden_size", "", kInConfigJson}, Take::kShape, "intermediate_size"},
    {{kM, "num_attention_heads", "", kInConfigJson}, Take::kShape, "num_attention_heads"},
    {{kM, "max_position_embeddings", "", kInConfigJson}, Take::kShape, "max_position_embeddings"},
    {{kM, "moe_ffn_hidden_size", "", kInConfigJson}, Take::kShape, "intermediate_size"},
    {{kM, "num_query_groups", "", kInConfigJson}, Take::kShape, "num_key_value_heads"},
    {{kM, "kv_channels", "", kInConfigJson}, Take::kShape, "head_dim"},
    {{kM, "vocab_size", "", kInConfigJson}, Take::kShape, "vocab_size"},
    {{kM, "rotary_base", "", kInConfigJson}, Take::kShape, "rope_theta"},
    {{kM, "norm_epsilon", "", kInConfigJson}, Take::kShape, "rms_norm_eps"},
    {{kM, "layernorm_epsilon", "", kInConfigJson}, Take::kShape, "rms_norm_eps"},
    {{kM, "untie_embeddings_and_output_weights", "", kInConfigJson}, Take::kShape, "!tie_word_embeddings"},
    {{kM, "group_query_attention", "", kInConfigJson}, Take::kSwitch},
    {{kM, "position_embedding_type", "", kInConfigJson}, Take::kOnly, "rope"},
    {{kM, "use_rotary_position_embeddings", "", kInConfigJson}, Take::kOnly, "true"},
    {{kM, "rotary_percent", "", kInConfigJson}, Take::kOnly, "1"},
    {{kM, "no_position_embedding", "", kInConfigJson}, Take::kOnly, "true"},
    {{kM, "normalization", "", kInConfigJson}, Take::kOnly, "RMSNorm"},
    {{kM, "swiglu", "", kInConfigJson}, Take::kOnly, "true"},
    {{kM, "disable_bias_linear", "", kInConfigJson}, Take::kOnly, "true"},
    {{kM, "add_bias_linear", "", kInConfigJson}, Take::kOnly, "false"},
    {{kM, "gated_linear_unit", "", kInConfigJson}, Take::kOnly, "true"},
    {{kM, "qk_layernorm", "", kInConfigJson}, Take::kOnly, "false"},
    {{kM, "make_vocab_size_divisible_by", "", kInConfigJson}, Take::kNothing},
    {{kM, "init_method_std", "", kInConfigJson}, Take::kNothing},
    {{kM, "attention_dropout", "", "not supported: there is no dropout"}, Take::kOnly, "0"},
    {{kM, "hidden_dropout", "", "not supported: there is no dropout"}, Take::kOnly, "0"},
    // Experts and their router
    {{0, "moe_aux_loss_coeff", ""}, Take::kKey},
    {{0, "moe_router_load_balancing_type", ""}, Take::kKey},
    {{0, "moe_z_loss_coeff", ""}, Take::kKey},
    {{0, "moe_router_topk", ""}, Take::kKey},
    {{0, "moe_router_score_function", ""}, Take::kKey},
    {{0, "moe_router_pre_softmax", ""}, Take::kKey},
    {{0, "moe_router_topk_scaling_factor", ""}, Take::kKey},
    {{0, "moe_router_dtype", ""}, Take::kKey},
    {{0, "moe_token_drop_policy", ""}, Take::kKey},
    {{kM, "moe_capacity_factor", "moe_expert_capacity_factor", "its name there too"}},
    {{0, "moe_expert_capacity_factor", ""}, Take::kCombined},
    {{0, "moe_pad_expert_input_to_capacity", ""}, Take::kKey},
    {{kM | kLlamaFactory, "moe_token_dispatcher_type", "", "not needed: tokens go by all-to-all"}, Take::kNothing},
    {{kM | kLlamaFactory, "moe_grouped_gemm", "experts_implementation: grouped", "the default"}, Take::kKey},
    {{kM, "moe_permute_fusion", "", kOwnKernels}, Take::kSwitch},
    {{kM, "moe_use_overlap", "",
      "not needed: exchange runs beside compute; it is overlap_moe_expert_parallel_comm there"},
     Take::kSwitch},
    {{kM, "overlap_moe_expert_parallel_comm", "", kOverlap}, Take::kSwitch},
    {{kM, "moe_router_fusion", "", kOwnKernels}, Take::kSwitch},
    {{0, "moe_input_jitter_eps", ""}, Take::kKey},
    {{0, "moe_router_enable_expert_bias", ""}, Take::kKey},
    {{0, "moe_router_bias_update_rate", ""}, Take::kKey},
    {{0, "moe_router_force_load_balancing", ""}, Take::kKey},
    {{kM, "moe_shared_expert_intermediate_size", "", "not supported: Mixtral has no shared expert"}, Take::kOnly, "0"},
    {{kM, "moe_layer_freq", "", "not supported: every layer has experts, as in Mixtral"}, Take::kOnly, "1"},
    {{kM, "moe_per_layer_logging", "",
      "not needed: it changes nothing in training; `metrics.jsonl` has what is measured"},
     Take::kSwitch},
    // Data
    {{0, "data_path", ""}, Take::kCombined},
    {{0, "split", ""}, Take::kKey},
    {{0, "seq_length", ""}, Take::kKey},
    {{0, "reset_position_ids", ""}, Take::kKey},
    {{0, "reset_attention_mask", ""}, Take::kKey},
    {{0, "eod_mask_loss", ""}, Take::kKey},
    {{0, "tokenizer_type", ""},
     Take::kOnly,
     "HuggingFaceTokenizer|Llama2Tokenizer|MistralTokenizer|SentencePieceTokenizer|GPTSentencePieceTokenizer"},
    {{kM, "tokenizer_model", "tokenizer_name_or_path", "the folder that holds it"}, Take::kCombined},
    {{kM, "train_data_path", "datasets", "with `dataset_format: megatron`"}, Take::kCombined},
    {{kM, "valid_data_path", "validation_file"}, Take::kKey},
    {{kM, "test_data_path", "", "not supported: a run tests nothing; `mixtune evaluate` does"}},
    {{kM, "data_cache_path", "", "not needed: the order of windows is computed as a run starts"}, Take::kNothing},
    {{kM, "mock_data", "", "not supported: name real data"}, Take::kOnly, "false"},
    {{kM, "num_workers", "", kNoWorkers}, Take::kNothing},
    {{kM, "dataloader_type", "", "not supported: rows come in the order of single there"}, Take::kOnly, "single"},
    {{kM, "no_create_attention_mask_in_dataloader", "", kOwnKernels}, Take::kSwitch},
    {{kM, "input", "train_file", kPreprocess}},
    {{kM, "output_prefix", "", "not a key: `mixtune preprocess` has `--output` and `--output_format indexed`"}},
    {{kM, "workers", "", kNoWorkers}},
    {{kM, "partitions", "", kNoWorkers}},
    {{kM, "append_eod", "", "not needed: documents end with EOS"}},
    // Batch and length
    {{0, "micro_batch_size", ""}, Take::kKey},
    {{0, "global_batch_size", ""}, Take::kKey},
    {{kM, "rampup_batch_size", "", "not supported: every step has as many rows"}},
    {{kM, "train_iters", "max_steps"}, Take::kKey},
    {{kM, "train_samples", "max_steps", "in steps, not rows"}, Take::kCombined},
    {{kM, "exit_duration_in_mins", "time_limit"}, Take::kCombined},
    {{kM, "exit_signal_handler", "", "not needed: a signal stops a run after a checkpoint"}, Take::kSwitch},
    {{kM, "exit_interval", "", "not supported: `time_limit` or a signal stops a run"}},
    // Optimizer and schedule
    {{0, "lr", ""}, Take::kKey},
    {{0, "weight_decay", ""}, Take::kKey},
    {{0, "adam_beta1", ""}, Take::kKey},
    {{0, "adam_beta2", ""}, Take::kKey},
    {{0, "seed", ""}, Take::kKey},
    {{0, "optimizer", ""}, Take::kOnly, "adam"},
    {{kM, "start_weight_decay", "", "not supported: `weight_decay` stays the same"}},
    {{kM, "end_weight_decay", "", "not supported: `weight_decay` stays the same"}},
    {{kM, "weight_decay_incr_style", "", "not supported: `weight_decay` stays the same"}, Take::kOnly, "constant"},
    {{kM, "lr_decay_style", "lr_scheduler_type"}, Take::kCombined},
    {{kM, "min_lr", "lr_scheduler_kwargs", "min_lr of `cosine_with_min_lr`; for linear it is lr_end of `polynomial`"},
     Take::kCombined},
    {{kM, "decoupled_lr", "lr_groups", "of embeddings and of head"}, Take::kCombined},
    {{kM, "decoupled_min_lr", "", "not supported: a group falls to the share of its peak that the others fall to"}},
    {{kM, "lr_decay_iters", "", "not needed: the schedule ends with the run"}, Take::kCombined},
    {{kM, "lr_decay_samples", "", "not needed: the schedule ends with the run"}},
    {{kM, "lr_wsd_decay_iters", "lr_scheduler_kwargs", "num_decay_steps of `warmup_stable_decay`"}, Take::kCombined},
    {{kM, "lr_wsd_decay_samples", "lr_scheduler_kwargs", "num_decay_steps of `warmup_stable_decay`, in steps"},
     Take::kCombined},
    {{kM, "lr_wsd_decay_style", "lr_scheduler_kwargs",
      "decay_type: 1-sqrt is minus_sqrt there; exponential must be said"},
     Take::kCombined},
    {{kM, "lr_warmup_init", "", "not supported: a warm-up begins at 0"}, Take::kOnly, "0"},
    {{kM, "lr_warmup_fraction", "warmup_ratio"}, Take::kKey},
    {{kM, "lr_warmup_iters", "warmup_steps"}, Take::kKey},
    {{kM, "lr_warmup_samples", "warmup_steps", "in steps, not rows"}, Take::kCombined},
    {{kM, "clip_grad", "max_grad_norm"}, Take::kKey},
    {{kM, "adam_eps", "adam_epsilon"}, Take::kKey},
    // Checkpoints, evaluation, records
    {{kM, "save", "output_dir"}, Take::kKey},
    {{kM, "load", "model_name_or_path", "a Hugging Face folder, on any layout"}, Take::kKey},
    {{kM, "pretrained_checkpoint", "model_name_or_path", "a Hugging Face folder, on any layout"}, Take::kKey},
    {{kM, "finetune", "", "not needed: a run always starts with fresh optimizer state"}, Take::kSwitch},
    {{kM, "no_load_optim", "", "not needed: a run always starts with fresh optimizer state"}, Take::kSwitch},
    {{kM, "no_load_rng", "", "not needed: random choices follow from `seed` and the step"}, Take::kSwitch},
    {{kM, "no_save_rng", "", "not needed: random choices follow from `seed` and the step"}, Take::kSwitch},
    {{kM, "no_save_optim", "save_only_model"}, Take::kKey},
    {{kM, "ckpt_format", "", "not needed: checkpoints are Hugging Face folders that load on any layout"},
     Take::kNothing},
    {{kM, "dist_ckpt_strictness", "", "not needed: checkpoints are Hugging Face folders that load on any layout"},
     Take::kNothing},
    {{kM, "use_dist_ckpt", "", "not needed: checkpoints are Hugging Face folders that load on any layout"},
     Take::kSwitch},
    {{kM, "auto_detect_ckpt_format", "", "not needed: checkpoints are Hugging Face folders that load on any layout"},
     Take::kSwitch},
    {{kM, "async_save", "", "not needed: checkpoints are Hugging Face folders that load on any layout"}, Take::kSwitch},
    {{kM, "save_interval", "save_steps"}, Take::kKey},
    {{kM, "eval_interval", "eval_steps"}, Take::kKey},
    {{kM, "eval_iters", "", "not needed: the whole of the validation data is used"}, Take::kNothing},
    {{kM, "log_interval", "logging_steps"}, Take::kKey},
    {{kM, "log_throughput", "", "not needed: every step has its TFLOP/s, and its MFU where the GPU's peak is known"},
     Take::kSwitch},
    {{kM, "log_progress", "", "not needed: it changes nothing in training; `metrics.jsonl` has what is measured"},
     Take::kSwitch},
    {{kM, "log_timers_to_tensorboard", "",
      "not needed: it changes nothing in training; `metrics.jsonl` has what is measured"},
     Take::kSwitch},
    {{kM, "log_memory_to_tensorboard", "",
      "not needed: it changes nothing in training; `metrics.jsonl` has what is measured"},
     Take::kSwitch},
    {{kM, "log_validation_ppl_to_tensorboard", "",
      "not needed: it changes nothing in training; `metrics.jsonl` has what is measured"},
     Take::kSwitch},
    {{kM, "log_params_norm", "", "not needed: it changes nothing in training; `metrics.jsonl` has what is measured"},
     Take::kSwitch},
    {{kM, "log_num_zeros_in_grad", "",
      "not needed: it changes nothing in training; `metrics.jsonl` has what is measured"},
     Take::kSwitch},
    {{kM, "timing_log_level", "", "not needed: it changes nothing in training; `metrics.jsonl` has what is measured"},
     Take::kNothing},
    {{kM, "tensorboard_dir", "report_to: tensorboard", "the files are in `runs/` of `output_dir`"}, Take::kCombined},
    {{0, "wandb_project", ""}, Take::kRefused},
    {{kM, "wandb_exp_name", "", kSentByScript}},
    {{kM, "wandb_save_dir", "", kSentByScript}},
    // Precision, memory, kernels
    {{0, "bf16", ""}, Take::kKey},
    {{0, "fp16", ""}, Take::kOnly, "false"},
    {{0, "fp8", ""}, Take::kRefused},
    {{kM, "fp8_format", "fp8_scaling", "`block` is E4M3 alone; with `tensor` gradients are E5M2"}},
    {{kM, "fp8_recipe", "fp8_scaling", "`block` or `tensor`; or `precision: mxfp8`"}},
    {{kM | kLlamaFactory, "recompute_granularity", "recompute", "`selective` or `full`"}, Take::kKey},
    {{kM | kLlamaFactory, "recompute_method", "recompute"}, Take::kNothing},
    {{kM | kLlamaFactory, "recompute_num_layers", "recompute", "all layers, or those that do not fit"}, Take::kNothing},
    {{kM, "recompute_activations", "recompute: selective"}, Take::kKey},
    {{kM, "accumulate_allreduce_grads_in_fp32", "gradient_dtype: fp32", "the default"}, Take::kKey},
    {{kM, "attention_softmax_in_fp32", "", "not needed: it always is"}, Take::kSwitch},
    {{kM, "attention_backend", "", kOwnKernels}, Take::kNothing},
    {{kM, "transformer_impl", "", kOwnKernels}, Take::kNothing},
    {{kM, "use_flash_attn", "", kOwnKernels}, Take::kSwitch},
    {{kM, "use_mcore_models", "", kOwnKernels}, Take::kSwitch},
    {{kM, "no_masked_softmax_fusion", "", kOwnKernels}, Take::kSwitch},
    {{kM, "no_bias_swiglu_fusion", "", kOwnKernels}, Take::kSwitch},
    {{kM, "no_rope_fusion", "", kOwnKernels}, Take::kSwitch},
    {{kM, "no_gradient_accumulation_fusion", "", kOwnKernels}, Take::kSwitch},
    {{kM, "no_async_tensor_model_parallel_allreduce", "", kOwnKernels}, Take::kSwitch},
    {{kM, "cross_entropy_loss_fusion", "", kOwnKernels}, Take::kSwitch},
    {{kM, "tp_comm_overlap", "", kOwnKernels}, Take::kSwitch},
    {{kM, "deterministic_mode", "deterministic"}, Take::kKey},
    {{kM, "enable_cuda_graph", "cuda_graphs", "each micro-batch whole"}, Take::kKey},
    {{kM, "external_cuda_graph", "cuda_graphs", "each micro-batch whole"}, Take::kKey},
    {{kM, "cuda_graph_scope", "", "not needed: `cuda_graphs` are of each micro-batch whole"}, Take::kNothing},
    {{kM, "check_for_nan_in_loss_and_grad", "", "not needed: it always is; `skip_nonfinite_steps` goes on after one"},
     Take::kSwitch},
    {{kM, "check_for_spiky_loss", "stop_on_divergence", "without it a warning"}, Take::kKey},
    {{kM, "check_for_large_grads", "", "not needed: a run warns of them"}, Take::kSwitch},
    // What recipes set besides: NCCL's variables, and the versions of an environment
    {{kM, "NCCL_IB_HCA", "", kEnvironment}},
    {{kM, "NCCL_IB_GID_INDEX", "", kEnvironment}},
    {{kM, "NCCL_SOCKET_IFNAME", "", kEnvironment}},
    {{kM, "NCCL_DEBUG", "", kEnvironment}},
    {{kM, "NCCL_ALGO", "", kEnvironment}},
    {{kM, "CUDA_DEVICE_MAX_CONNECTIONS", "", "not needed: the order of kernels does not depend on it"}, Take::kNothing},
    {{kM, "python", "", kOneProgram}, Take::kNothing},
    {{kM, "torch", "", kOneProgram}, Take::kNothing},
    {{kM, "cuda", "", kOneProgram}, Take::kNothing},
    {{kM, "transformer_engine", "", kOneProgram}, Take::kNothing},
    {{kM, "megatron_core", "", kOneProgram}, Take::kNothing},
    {{kM, "nccl", "", kOneProgram}, Take::kNothing},
};

std::vector<ForeignKey> hints() {
  std::vector<ForeignKey> keys;
  for (const MegatronFlag& flag : kFlags)
    if (flag.foreign.tools != 0) keys.push_back(flag.foreign);
  return keys;
}

}  // namespace

std::span<const ForeignKey> megatron_keys() {
  static const std::vector<ForeignKey> keys = hints();
  return keys;
}

const MegatronFlag* find_megatron_flag(std::string_view name) {
  const auto found = std::ranges::find_if(kFlags, [&](const MegatronFlag& flag) { return flag.foreign.name == name; });
  return found == std::end(kFlags) ? nullptr : &*found;
}

std::vector<std::string_view> megatron_flag_names() {
  std::vector<std::string_view> names;
  for (const MegatronFlag& flag : kFlags) names.push_back(flag.foreign.name);
  return names;
}

}  // namespace mixtune
