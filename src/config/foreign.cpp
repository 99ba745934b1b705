#include "config/foreign.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

namespace mixtune {

namespace {

constexpr std::array kValues = {
    ForeignValue{"precision", "nvfp4", "", "not supported; fp8 and mxfp8 are the lowest"},
    ForeignValue{"precision", "fp4", "", "not supported; fp8 and mxfp8 are the lowest"},
    ForeignValue{"precision", "int8", "", "not supported; fp8 and mxfp8 are what 8 bits are here"},
    ForeignValue{"precision", "int4", "", "not supported; fp8 and mxfp8 are the lowest"},
    ForeignValue{"fp8_scaling", "tensorwise", "tensor"},
    ForeignValue{"fp8_scaling", "blockwise", "block"},
    ForeignValue{"fp8_scaling", "delayed", "", "not supported; `tensor` scales by what the tensor has now"},
    ForeignValue{"fp8_scaling", "mxfp8", "", "not a value; set precision: mxfp8"},
    ForeignValue{"precision", "fp16", "", "not supported; bf16 takes as much memory and needs no loss scaling"},
    ForeignValue{"precision", "float16", "", "not supported; bf16 takes as much memory and needs no loss scaling"},
    ForeignValue{"precision", "bfloat16", "bf16"},
    ForeignValue{"precision", "float32", "fp32"},
    ForeignValue{"precision", "tf32", "", "not supported; fp32 is exact, bf16 is faster"},
    ForeignValue{"precision", "no", "fp32"},
    ForeignValue{"report_to", "wandb", "", kSentByScript},
    ForeignValue{"report_to", "all", "tensorboard", "there is no other"},
    ForeignValue{"report_to", "mlflow", "", kSentByScript},
    ForeignValue{"report_to", "comet_ml", "", kNoTracker},
    ForeignValue{"report_to", "swanlab", "", kNoTracker},
    ForeignValue{"report_to", "trackio", "", kNoTracker},
    ForeignValue{"save_dtype", "bfloat16", "bf16"},
    ForeignValue{"save_dtype", "float32", "fp32"},
    ForeignValue{"save_dtype", "fp16", "", "not supported yet; use bf16 or fp32"},
    ForeignValue{"optimizer_state_dtype", "int8", "", "not supported yet; bf16 is the lowest today"},
    ForeignValue{"optimizer_state_dtype", "8bit", "", "not supported yet; bf16 is the lowest today"},
    ForeignValue{"optimizer_state_dtype", "bfloat16", "bf16"},
    ForeignValue{"gradient_dtype", "bfloat16", "bf16"},
    ForeignValue{"device", "gpu", "cuda"},
    ForeignValue{"device", "cuda:0", "cuda", "`CUDA_VISIBLE_DEVICES` chooses among GPUs"},
    ForeignValue{"dataset_format", "alpaca", "instruction"},
    ForeignValue{"dataset_format", "sharegpt", "messages"},
    ForeignValue{"dataset_format", "openai", "messages"},
    ForeignValue{"dataset_format", "chat_template", "messages"},
    ForeignValue{"dataset_format", "completion", "text"},
    ForeignValue{"dataset_format", "pretrain", "text"},
    ForeignValue{"dataset_format", "json", "auto", "a file's content says what it is"},
    ForeignValue{"chat_template", "tokenizer_default", "auto"},
    ForeignValue{"chat_template", "tokenizer_default_fallback_chatml", "auto"},
    ForeignValue{"chat_template", "mistral", "auto", "or the version's name"},
    ForeignValue{"chat_template", "mistral_v1", "mistral-v1"},
    ForeignValue{"chat_template", "mistral_v2v3", "mistral-v3"},
    ForeignValue{"chat_template", "mistral_v3_tekken", "mistral-v3-tekken", "which is not supported yet"},
    ForeignValue{"chat_template", "llama2", "llama-2"},
    ForeignValue{"chat_template", "jinja", "auto", "the checkpoint's own, where it is a known one"},
    ForeignValue{
        "lr_scheduler_type", "reduce_lr_on_plateau", "",
        "not supported: the rate is one of the step, not of evaluations; `early_stopping_patience` ends a run"},
    ForeignValue{"lr_scheduler_type", "greedy", "", "not supported: the rate is one of the step, not of the loss"},
    ForeignValue{"lr_scheduler_type", "WSD", "warmup_stable_decay",
                 "its `decay_type: exponential` is the default there"},
    ForeignValue{"lr_scheduler_type", "inverse-square-root", "inverse_sqrt", "with a warm-up; there is no `min_lr`"},
    ForeignValue{"lr_scheduler_type", "one_cycle", "cosine", "with `warmup_ratio`; it falls to 0"},
    ForeignValue{"experts_implementation", "eager", "loop"},
    ForeignValue{"experts_implementation", "grouped_mm", "grouped"},
    ForeignValue{"experts_implementation", "batched_mm", "grouped"},
    ForeignValue{"recompute", "true", "full"},
    ForeignValue{"recompute", "false", "none"},
    ForeignValue{"router_aux_loss_type", "aux_loss", "huggingface", "the other is `moe_router_load_balancing_type`"},
    ForeignValue{"moe_router_dtype", "fp64", "",
                 "not supported: logits are sums of bf16 or fp32 products, exact enough in fp32"},
    ForeignValue{"moe_router_dtype", "bf16", "fp32", "it is never less"},
    ForeignValue{"router_aux_loss_type", "sinkhorn", "", "no loss; set `moe_router_load_balancing_type: sinkhorn`"},
};

std::vector<ForeignKey> joined() {
  std::vector<ForeignKey> all;
  for (const auto part : {trainer_keys(), megatron_keys(), hugging_face_keys()})
    all.insert(all.end(), part.begin(), part.end());
  return all;
}

// For a terminal, that shows no `code`.
std::string quoted(std::string_view markdown) {
  std::string text(markdown);
  std::ranges::replace(text, '`', '\'');
  return text;
}

std::string what_to_write(std::string_view write, std::string_view note) {
  if (write.empty()) return quoted(note);
  return note.empty() ? fmt::format("use '{}'", write) : fmt::format("use '{}' ({})", write, quoted(note));
}

}  // namespace

std::span<const ForeignKey> foreign_keys() {
  static const std::vector<ForeignKey> all = joined();
  return all;
}

std::span<const ForeignValue> foreign_values() {
  return kValues;
}

const ForeignKey* find_foreign_key(std::string_view name) {
  const auto found = std::ranges::find(foreign_keys(), name, &ForeignKey::name);
  return found == foreign_keys().end() ? nullptr : &*found;
}

const ForeignValue* find_foreign_value(std::string_view key, std::string_view value) {
  const auto found = std::ranges::find_if(
      kValues, [&](const ForeignValue& foreign) { return foreign.key == key && foreign.value == value; });
  return found == kValues.end() ? nullptr : &*found;
}

std::string hint(const ForeignKey& foreign) {
  return what_to_write(foreign.key, foreign.note);
}

std::string hint(const ForeignValue& foreign) {
  return what_to_write(foreign.instead, foreign.note);
}

}  // namespace mixtune
