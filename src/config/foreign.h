// What other trainers call things, and what to write here: the one owner of the hints for their keys and values, and of
// the tables in docs/coming-from.md.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace mixtune {

enum Tool : unsigned {  // a set of them is their sum
  kTransformers = 1,    // TrainingArguments, and TRL's SFTConfig and scripts
  kAxolotl = 2,
  kLlamaFactory = 4,
  kMistralFinetune = 8,
  kMegatron = 16,
  kLaunchers = 32,  // DeepSpeed's, FSDP's and Accelerate's configurations
};

struct ForeignKey {
  unsigned tools;
  std::string_view name;       // with underscores, where the tool's flag has hyphens
  std::string_view key;        // what to write, "key" or "key: value"; "" where there is nothing to write
  std::string_view note = "";  // markdown: what differs, or why the key is not needed, or not supported
};

// A value that other trainers have for a key of ours.
struct ForeignValue {
  std::string_view key, value;
  std::string_view instead;  // the value to write; "" where there is none
  std::string_view note = "";
};

std::span<const ForeignKey> foreign_keys();
std::span<const ForeignValue> foreign_values();

const ForeignKey* find_foreign_key(std::string_view name);
const ForeignValue* find_foreign_value(std::string_view key, std::string_view value);

// "use 'max_seq_length'", or why there is nothing to write.
std::string hint(const ForeignKey& foreign);
std::string hint(const ForeignValue& foreign);

// The tables' parts, each sorted as it should be read.
std::span<const ForeignKey> hugging_face_keys();
std::span<const ForeignKey> trainer_keys();
std::span<const ForeignKey> megatron_keys();

// Notes that keys of several tools share.
inline constexpr std::string_view kPlainLora = "not supported: adapters are plain LoRA (docs/adapters.md)";
inline constexpr std::string_view kNoTracker = "not supported; `metrics.jsonl` in `output_dir` has every step";
inline constexpr std::string_view kSentByScript =
    "not supported; `scripts/send_metrics.py` sends every step there (docs/other-trackers.md)";
inline constexpr std::string_view kNoHub = "not supported: files are local; `hf download` fetches them";
inline constexpr std::string_view kNoPreferences = "not supported: only supervised fine-tuning";
inline constexpr std::string_view kNoOptimizer = "not supported yet: the optimizer is always AdamW; remove the key";
inline constexpr std::string_view kNoStreaming = "not needed: a run reads its data from the disk, whatever its size";
inline constexpr std::string_view kNoTemplates =
    "not supported: templates are known by name; `chat_template` names one";
inline constexpr std::string_view kNoSystem = "not supported: write a system turn into the records";
inline constexpr std::string_view kOwnTokens =
    "not a key: tokens are added in the tokeniser's files (docs/tokenizers.md), rows for them by `resize_vocabulary`";
inline constexpr std::string_view kNoWorkers = "not needed: reading and tokenising need no settings";
inline constexpr std::string_view kInConfigJson = "not needed: the checkpoint's `config.json` says it";
inline constexpr std::string_view kOwnKernels = "not needed: the fastest kernels of the machine are taken";
inline constexpr std::string_view kNoOffload = "not supported yet: all state stays on the GPU";
inline constexpr std::string_view kNoPlainSplit =
    "not supported: only experts are split over ranks, by `expert_model_parallel_size`";

}  // namespace mixtune
