#include "config/key_table.h"

#include "config/key_builder.h"

namespace mixtune {

namespace {

constexpr double kMany = 1e12;  // steps, files: more is a slip of the pen

void add_model_keys(KeyTable& table) {
  using M = ModelSettings;
  table.group("Model");
  table.add("model_name_or_path", &Config::model, &M::model_name_or_path,
            "folder of the checkpoint to start from (required)", kNullable);
  table.add("tokenizer_name_or_path", &Config::model, &M::tokenizer_name_or_path,
            "folder with `tokenizer.json` or `tokenizer.model`; null: `model_name_or_path`", kNullable);
  table.add(
      "resize_vocabulary", &Config::model, &M::resize_vocabulary,
      "where the tokeniser has more tokens than the model: give the model a row for each, the mean of the old rows");
}

void add_data_keys(KeyTable& table) {
  using D = DataSettings;
  table.group("Data");
  table.add("train_file", &Config::data, &D::train_file,
            "file of JSON records to train on, a pattern (`data/*.jsonl`), or a list of them (required, or `datasets`)",
            kNullable);
  table.add("datasets", &Config::data, &D::datasets,
            "instead of `train_file`: a list of `{path, weight, format, template, split, max_samples}`, or words, "
            "`\"WEIGHT PATH ...\"`; also called `data_path`",
            kNullable);
  table.last().alias = "data_path";
  table.add("validation_file", &Config::data, &D::validation_file,
            "the same as `train_file`, to evaluate on; or `{name: file, ...}`: sets that are evaluated each by itself",
            kNullable);
  table.add("validation_split_percentage", &Config::data, &D::validation_split_percentage,
            "share of the training records held out for evaluation, in percent; 0: none",
            {.bounds = {0, 100, Bounds::kOpenHigh}, .nullable = true});
  table.add(
      "split", &Config::data, &D::split,
      "weights of training, validation and test: `990,9,1` cuts the records of each data set, in their order, into "
      "these parts; null: all are trained on",
      kNullable);
  table.add("dataset_format", &Config::data, &D::dataset_format,
            "form of the records (docs/data.md); `auto`: told from the first; `megatron`: windows of indexed data "
            "(docs/indexed-data.md)");
  table.add("train_on_prompt", &Config::data, &D::train_on_prompt,
            "train on prompts too, not only on answers (`messages`, `instruction` and `prompt_completion`)");
  table.add("chat_template", &Config::data, &D::chat_template,
            "how a conversation becomes text; `auto`: what the tokeniser's folder says");
  table.add("parse_special_tokens", &Config::data, &D::parse_special_tokens,
            "special tokens that a text spells (`</s>`) become these tokens, instead of staying text");
  table.add("long_documents", &Config::data, &D::long_documents,
            "what becomes of a document longer than `max_seq_length`; `auto`: `split` for `text`, else `truncate`");
  table.add("packing", &Config::data, &D::packing,
            "fill rows of `max_seq_length` tokens with several documents, which never see each other");
  table.add("shuffle", &Config::data, &D::shuffle, "shuffle the documents anew in each epoch");
  table.add("max_seq_length", &Config::data, &D::max_seq_length,
            "tokens of the longest row, or of a window; also called `seq_length`", {.bounds = {2, 1 << 20}});
  table.last().alias = "seq_length";
  table.add(
      "reset_attention_mask", &Config::data, &D::reset_attention_mask,
      "`dataset_format: megatron`: documents in a window do not see each other; null: what `reset_position_ids` is",
      kNullable);
  table.add("reset_position_ids", &Config::data, &D::reset_position_ids,
            "the same: positions begin anew in each document, which isolates it too");
  table.add("eod_mask_loss", &Config::data, &D::eod_mask_loss,
            "the same: the end of a document is not trained to predict the next one's first token");
  table.add("data_cache", &Config::data, &D::data_cache,
            "folder that keeps tokenised data for later runs, or `off`; null: `$XDG_CACHE_HOME/mixtune/data`",
            kNullable);
}

void add_batch_keys(KeyTable& table) {
  using B = BatchSettings;
  table.group("Batch and length of the run");
  table.add("per_device_train_batch_size", &Config::batch, &B::per_device_train_batch_size, "rows of a micro-batch",
            {.bounds = {1, 1 << 16}});
  table.add("gradient_accumulation_steps", &Config::batch, &B::gradient_accumulation_steps,
            "micro-batches of an optimizer step", {.bounds = {1, 1 << 20}});
  table.add("global_batch_size", &Config::batch, &B::global_batch_size,
            "rows of an optimizer step on all ranks, instead of `gradient_accumulation_steps`; 0: not set",
            {.bounds = {0, kMany}});
  table.add("num_train_epochs", &Config::batch, &B::num_train_epochs,
            "passes over the training data; may be a fraction", {.bounds = {0, 1e6, Bounds::kOpenLow}});
  table.add("max_steps", &Config::batch, &B::max_steps, "optimizer steps; overrides `num_train_epochs`; -1: not set",
            {.bounds = {-1, kMany}});
}

void add_optimizer_keys(KeyTable& table) {
  using O = OptimizerSettings;
  table.group("Optimizer");
  table.add("learning_rate", &Config::optimizer, &O::learning_rate, "AdamW's peak learning rate", {.bounds = {0, 100}});
  table.add("lr_groups", &Config::optimizer, &O::lr_groups,
            "peaks of groups of weights, such as `{router: 1e-5}` (docs/schedules.md); 0: the group stays as it is",
            kNullable);
  table.add("freeze", &Config::optimizer, &O::freeze,
            "what is not trained, a list: `attention`, `embeddings`, `experts`, `lm_head`, `norms`, `router`, "
            "`layers.0-7`, `layers.3.router`, or tensors' names with `*` (docs/freezing.md)",
            kNullable);
  table.add("lr_scheduler_type", &Config::optimizer, &O::lr_scheduler_type, "course of the learning rate");
  table.add("lr_scheduler_kwargs", &Config::optimizer, &O::lr_scheduler_kwargs,
            "settings of that schedule, such as `{min_lr: 1e-6}` (docs/schedules.md)", kNullable);
  table.add("warmup_ratio", &Config::optimizer, &O::warmup_ratio,
            "share of all steps, rounded up, over which the learning rate rises from 0", {.bounds = {0, 1}});
  table.add("warmup_steps", &Config::optimizer, &O::warmup_steps,
            "the same in steps, which overrides `warmup_ratio`; below 1: a ratio", {.bounds = {0, kMany}});
  table.last().type = KeyType::kIntegerOrShare;
  table.last().set = [](Config& config, const Value& value) {
    const double steps = std::get<double>(value);
    config.optimizer.warmup_steps = static_cast<int64_t>(steps);
    if (steps > 0 && steps < 1) config.optimizer.warmup_ratio = steps;
  };
  table.add("adam_beta1", &Config::optimizer, &O::adam_beta1, "decay of AdamW's first moment",
            {.bounds = {0, 1, Bounds::kOpenHigh}});
  table.add("adam_beta2", &Config::optimizer, &O::adam_beta2, "decay of AdamW's second moment",
            {.bounds = {0, 1, Bounds::kOpenHigh}});
  table.add("adam_epsilon", &Config::optimizer, &O::adam_epsilon, "AdamW's epsilon",
            {.bounds = {1e-37, 1}});  // a smaller one may be 0 in fp32
  table.add("weight_decay", &Config::optimizer, &O::weight_decay, "decoupled weight decay; norms are spared",
            {.bounds = {0, 100}});
  table.add("max_grad_norm", &Config::optimizer, &O::max_grad_norm, "clip the gradient to this norm; 0: never",
            {.bounds = {0, 1e6}});
  table.add("skip_nonfinite_steps", &Config::optimizer, &O::skip_nonfinite_steps,
            "steps in a row, at most, that are skipped as their loss or gradient norm is not finite; 0: the first one "
            "ends the run",
            {.bounds = {0, kMany}});
  table.add("stop_on_divergence", &Config::optimizer, &O::stop_on_divergence,
            "end the run where its loss is over 3 times its smallest mean for 5 steps (docs/watching.md)");
}

void add_run_keys(KeyTable& table) {
  using O = OutputSettings;
  using M = MachineSettings;
  using C = ComputeSettings;
  constexpr KeyExtra kEvery = {.bounds = {0, kMany}, .nullable = true};
  table.group("Output");
  table.add("output_dir", &Config::output, &O::output_dir, "folder for checkpoints and metrics (required)", kNullable);
  table.add("overwrite_output_dir", &Config::output, &O::overwrite_output_dir,
            "replace what an earlier run left in `output_dir`");
  table.add("eval_on_start", &Config::output, &O::eval_on_start,
            "evaluate before the first step too, to see what training does for the model");
  table.add("eval_steps", &Config::output, &O::eval_steps,
            "evaluate every so many steps; 0: once at the end, where there is validation data", kEvery);
  table.add("save_steps", &Config::output, &O::save_steps,
            "save every so many steps, and at the end; 0: only at the end", {.bounds = {0, kMany}});
  table.add("save_every_minutes", &Config::output, &O::save_every_minutes,
            "save also when the last save began so many minutes ago; 0: never", {.bounds = {0, kMany}});
  table.add("resume_from_checkpoint", &Config::output, &O::resume_from_checkpoint,
            "go on from a checkpoint: `auto`, the newest in `output_dir` (none there: the run begins), or its folder",
            kNullable);
  table.add("allow_changes", &Config::output, &O::allow_changes,
            "keys in which the run may differ from the one that wrote the checkpoint, a list", kNullable);
  table.add("save_only_model", &Config::output, &O::save_only_model,
            "save the model alone, without what a run needs to go on");
  table.add("checkpoint_host_memory", &Config::output, &O::checkpoint_host_memory,
            "host memory of a rank for copies of what is written behind training: a size; `auto`: what a checkpoint "
            "needs, but half of what is free at most");
  table.add(
      "time_limit", &Config::output, &O::time_limit,
      "stop in time before this is over, with a checkpoint: `90s`, `45m`, `2h`, `2:30:00`; null: none, or Slurm's",
      kNullable);
  table.add("save_total_limit", &Config::output, &O::save_total_limit,
            "checkpoints kept, the newest (and the best, with `load_best_model_at_end`); 0: all", kEvery);
  table.add("load_best_model_at_end", &Config::output, &O::load_best_model_at_end,
            "keep the best checkpoint, and have `output_dir` stand for it as a model (docs/watching.md)");
  table.add("metric_for_best_model", &Config::output, &O::metric_for_best_model,
            "what an evaluation is judged by, the smaller the better: `eval_loss`, `eval_perplexity`; of sets by name "
            "`eval_NAME_loss`, `eval_NAME_perplexity`");
  table.add("early_stopping_patience", &Config::output, &O::early_stopping_patience,
            "end the run after so many evaluations in a row without improvement; 0: never", kEvery);
  table.add("early_stopping_threshold", &Config::output, &O::early_stopping_threshold,
            "by how much more than this an evaluation must be better to be an improvement", {.bounds = {0, kMany}});
  table.add("save_dtype", &Config::output, &O::save_dtype,
            "element type of saved weights; `checkpoint`: that of the model that was loaded");
  table.add("max_shard_size", &Config::output, &O::max_shard_size,
            "size of the largest file of weights or training state in a checkpoint");
  table.add("logging_steps", &Config::output, &O::logging_steps,
            "print every so many steps (`metrics.jsonl` has them all)", {.bounds = {1, kMany}});
  table.add("report_to", &Config::output, &O::report_to,
            "write every step for another program too, besides `metrics.jsonl` (docs/watching.md#tensorboard)");
  table.group("Machine");
  table.add("seed", &Config::machine, &M::seed, "seed of every random choice", {.bounds = {0, 0xFFFFFFFF}});
  table.add("device", &Config::machine, &M::device, "where to compute; `auto`: on a GPU where there is one");
  table.add("deterministic", &Config::machine, &M::deterministic,
            "only kernels that give the same bits in every run, on a GPU too; nothing is chosen by measuring");
  table.group("Precision and memory");
  table.add(
      "precision", &Config::compute, &C::precision,
      "arithmetic of the model; sums, norms, softmax and the router are fp32 in all. `bf16` needs a GPU; `fp8` and "
      "`mxfp8` are the layers' matrix products in 8 bits, beside bf16 on a GPU and fp32 on the CPU "
      "(docs/eight-bit.md)");
  table.add("fp8_scaling", &Config::compute, &C::fp8_scaling,
            "what shares a scale in `precision: fp8`: 128 elements or 128 x 128 (`block`), or all of an operand "
            "(`tensor`), whose gradients are then E5M2");
  table.add("fp8_power_of_two_scales", &Config::compute, &C::fp8_power_of_two_scales,
            "scales of `precision: fp8` are powers of two; otherwise fp32 numbers");
  table.add("master_weights", &Config::compute, &C::master_weights,
            "what the optimizer updates where weights are bf16: `fp32` copies of the weights, or the bf16 weights "
            "themselves, rounded stochastically (`none`)");
  table.add("gradient_dtype", &Config::compute, &C::gradient_dtype,
            "element type of weight gradients; `bf16` only without gradient accumulation");
  table.add("optimizer_state_dtype", &Config::compute, &C::optimizer_state_dtype,
            "element type of AdamW's moments; `bf16` is rounded stochastically");
  table.add(
      "recompute", &Config::compute, &C::recompute,
      "what backward computes again instead of keeping it: `selective` the experts' gate-up output, `full` all of "
      "a layer but its routing");
  table.add("experts_implementation", &Config::compute, &C::experts_implementation,
            "the experts' matrix products: all together (`grouped`) or one after the other (`loop`)");
  table.add("cuda_graphs", &Config::compute, &C::cuda_graphs,
            "give a GPU each micro-batch as one CUDA graph; needs moe_pad_expert_input_to_capacity, and one rank");
}

void add_parallel_keys(KeyTable& table) {
  using P = ParallelSettings;
  table.group("Several ranks");
  table.add("expert_model_parallel_size", &Config::parallel, &P::expert_model_parallel_size,
            "ranks over which the experts are spread; divides the number of ranks and that of experts",
            {.bounds = {1, 1 << 16}});
  table.add("zero_stage", &Config::parallel, &P::zero_stage,
            "1: each rank keeps and updates a piece of the optimizer's state; 0: all of it", {.bounds = {0, 1}});
  table.add("collective_timeout", &Config::parallel, &P::collective_timeout,
            "seconds after which a rank that does not answer, or stands still while others wait for it, ends the run",
            {.bounds = {0.1, 1e6}});
}

}  // namespace

std::vector<Key> make_key_table() {
  KeyTable table;
  add_model_keys(table);
  add_adapter_keys(table);
  add_router_keys(table);
  add_data_keys(table);
  add_batch_keys(table);
  add_optimizer_keys(table);
  add_run_keys(table);
  add_parallel_keys(table);
  return table.take();
}

}  // namespace mixtune
