#include "train/memory_savings.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "config/keys.h"

namespace mixtune {

namespace {

void add_bf16_state(const Config& config, std::vector<Saving>& list) {
  const ComputeSettings& compute = config.compute;
  if (compute.optimizer_state_dtype != StateDType::kBf16) list.push_back({"optimizer_state_dtype", "bf16", true, true});
  if (compute.gradient_dtype != StateDType::kBf16 && config.batch.gradient_accumulation_steps == 1)
    list.push_back({"gradient_dtype", "bf16", true, true});
  if (compute.master_weights != MasterWeights::kNone) list.push_back({"master_weights", "none", true, true});
}

}  // namespace

std::vector<Saving> savings(const Config& config, int64_t ranks) {
  std::vector<Saving> list;
  const ComputeSettings& compute = config.compute;
  if (ranks > 1 && config.parallel.zero_stage == 0) list.push_back({"zero_stage", "1", true, false});
  if (compute.recompute != Recompute::kFull) list.push_back({"recompute", "full", false, false});
  if (config.batch.per_device_train_batch_size > 1 && compute.gradient_dtype != StateDType::kBf16)
    list.push_back(
        {"per_device_train_batch_size", fmt::format("{}", config.batch.per_device_train_batch_size / 2), false, false});
  if (compute.precision != Precision::kFp32) add_bf16_state(config, list);
  const bool keeps_codes = compute.precision == Precision::kFp8;  // of weights, beside the state
  const bool has_own_keys = compute.fp8_scaling != Fp8Scaling::kBlock || !compute.fp8_power_of_two_scales;
  if (compute.precision != Precision::kBf16 && !has_own_keys) list.push_back({"precision", "bf16", keeps_codes, true});
  return list;
}

Config with(Config config, std::string_view key, std::string_view value) {
  const Key* found = find_key(key);
  MT_CHECK(found != nullptr);
  found->set(config, parse_value(*found, value, key));
  return config;
}

std::string memory_advice(const Config& config, int64_t ranks, bool on_gpu, MemoryOf part) {
  const auto first = [&](bool of_state) {
    std::vector<std::string> names;
    for (const Saving& saving : savings(config, ranks)) {
      if (saving.of_state != of_state || (saving.changes_numbers && !on_gpu)) continue;
      names.push_back(fmt::format("{}: {}", saving.key, saving.value));
      if (saving.key == "per_device_train_batch_size") names.back() += " (and raise gradient_accumulation_steps)";
    }
    return names;
  };
  std::vector<std::string> names = first(part == MemoryOf::kState);
  if (part == MemoryOf::kActivations) {
    if (names.empty() && on_gpu) names = first(true);  // a smaller state leaves more to activations
    names.push_back("a shorter max_seq_length");
  }
  std::string text = names.empty() ? "" : fmt::format("set {}", fmt::join(names, " or "));
  if (!on_gpu) return text.empty() ? "use a machine with more memory" : text + ", or use a machine with more memory";
  text += text.empty() ? "use " : ", or use ";
  return text + "more GPUs (expert_model_parallel_size): 'mixtune estimate' finds what fits";
}

}  // namespace mixtune
