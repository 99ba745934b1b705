#include "run/contract.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <variant>
#include <vector>

#include "base/error.h"
#include "config/keys.h"

namespace mixtune {

namespace {

constexpr auto kMayDiffer = std::to_array<std::string_view>(
    {// Paths. The model is the checkpoint, and the data's digest is in the contract.
     "model_name_or_path", "adapter_name_or_path", "tokenizer_name_or_path", "resize_vocabulary", "train_file",
     "validation_file", "data_cache", "output_dir",
     // In the contract as what comes of them: data, router_aux_loss_coef, router_losses, router_scores, rows_per_step,
     // total_steps.
     "chat_template", "router_aux_loss_coef", "moe_router_load_balancing_type", "moe_aux_loss_coeff",
     "moe_z_loss_coeff", "moe_router_score_function", "moe_router_pre_softmax", "moe_router_topk_scaling_factor",
     "moe_router_enable_expert_bias", "moe_router_topk", "per_device_train_batch_size", "gradient_accumulation_steps",
     "global_batch_size", "max_steps", "num_train_epochs",
     // When a run ends before its last step.
     "skip_nonfinite_steps", "stop_on_divergence", "early_stopping_patience", "early_stopping_threshold",
     // What is written, and when.
     "overwrite_output_dir", "resume_from_checkpoint", "allow_changes", "eval_on_start", "eval_steps", "save_steps",
     "save_total_limit", "load_best_model_at_end", "metric_for_best_model", "save_every_minutes", "save_only_model",
     "checkpoint_host_memory", "time_limit", "max_shard_size", "logging_steps", "report_to",
     // The machine, the layout, and how exactly it computes.
     "device", "deterministic", "precision", "moe_router_dtype", "fp8_scaling", "fp8_power_of_two_scales",
     "master_weights", "gradient_dtype", "optimizer_state_dtype", "recompute", "experts_implementation", "cuda_graphs",
     "expert_model_parallel_size", "zero_stage", "collective_timeout"});

// The place in the data is counted in steps; weights that were not trained have no moments to go on with.
constexpr std::array<std::string_view, 7> kNeverAllowed = {
    "rows_per_step", "freeze", "adapter", "lora_r", "lora_init", "lora_target_modules", "modules_to_save"};
constexpr std::array<std::string_view, 7> kBesideKeys = {
    "base", "data", "router_aux_loss_coef", "router_losses", "router_scores", "total_steps", "windows"};

bool is_never_allowed(std::string_view name) {
  return std::ranges::find(kNeverAllowed, name) != kNeverAllowed.end();
}

bool is_allowed(const Config& config, std::string_view name) {
  return !is_never_allowed(name) &&
         std::ranges::find(config.output.allow_changes, name) != config.output.allow_changes.end();
}

// Whether what a key said depends on the program that wrote it: all-linear had no gates once. The adapter's own pairs
// tell which there are, and a run that goes on must have the same (checkpoint/load_adapter.h).
bool is_told_otherwise(std::string_view name, std::string_view was) {
  return name == "lora_target_modules" && was.find("all-linear") != was.npos;
}

// `datasets` without where they lie, as the data's digest tells whether they are the same; a list without its order.
Value comparable(Value value) {
  if (auto* datasets = std::get_if<std::vector<Dataset>>(&value))
    for (Dataset& dataset : *datasets) dataset.path = {"-"};
  if (auto* list = std::get_if<std::vector<std::string>>(&value)) std::ranges::sort(*list);
  return value;
}

}  // namespace

bool may_differ(std::string_view key) {
  return std::ranges::find(kMayDiffer, key) != kMayDiffer.end();
}

Contract contract_of(const Config& config) {
  Contract contract;
  for (const Key& key : keys())
    if (!may_differ(key.name)) contract.emplace(key.name, format_value(comparable(key.get(config))));
  return contract;
}

void check_contract(const Contract& before, const Contract& now, const Config& config) {
  std::vector<std::string> differences, names;
  for (const auto& [name, is] : now) {
    const auto was = before.find(name);
    if (was == before.end() || was->second == is || is_allowed(config, name) || is_told_otherwise(name, was->second))
      continue;
    names.push_back(name);
    differences.push_back(fmt::format("{} was {}, is {}", name, printable(was->second, 200), printable(is, 200)));
  }
  if (differences.empty()) return;
  const std::string accept =
      std::ranges::any_of(names, is_never_allowed)
          ? ""
          : fmt::format(", or accept it: --allow_changes {}", fmt::join(names, " --allow_changes "));
  throw UserError(config.where("resume_from_checkpoint"),
                  fmt::format("this is not the run that wrote the checkpoint: {}", fmt::join(differences, "; ")),
                  fmt::format("put back what it was{}", accept));
}

void check_allowed_names(const Config& config) {
  for (const std::string& name : config.output.allow_changes) {
    if (name != "rows_per_step" && is_never_allowed(name))
      throw UserError(config.where("allow_changes"),
                      fmt::format("'{}' may not change: weights that were not trained have no optimizer state to go on "
                                  "with",
                                  name),
                      name == "freeze" ? "to train others, begin a run with the checkpoint as its model_name_or_path"
                                       : "to train others, begin a run: with a model, or with one that 'mixtune merge' "
                                         "has made of it and an adapter");
    const bool is_key = find_key(name) != nullptr && !may_differ(name);
    if (is_key || std::ranges::find(kBesideKeys, name) != kBesideKeys.end()) continue;
    throw UserError(config.where("allow_changes"),
                    fmt::format("'{}' is nothing that must be the same", printable(name)),
                    fmt::format("name a key that must be the same, or one of {}", fmt::join(kBesideKeys, ", ")));
  }
}

}  // namespace mixtune
