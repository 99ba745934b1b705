// The settings of a run: plain structs, filled by load.h from YAML and the command line. Defaults are those of
// transformers' TrainingArguments (docs/configuration.md has the exceptions).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mixtune {

enum class DatasetFormat { kAuto, kMessages, kInstruction, kPromptCompletion, kText, kTokenized, kMegatron };
enum class ChatTemplateName {
  kAuto,  // what the tokeniser's folder says
  kMistralV1,
  kMistralV2,
  kMistralV3,
  kMistralV3Tekken,
  kChatml,
  kZephyr,
  kVicuna,
  kAlpaca,
  kLlama2
};
enum class LongDocuments { kAuto, kTruncate, kSplit, kError };  // auto: split for text, truncate otherwise
enum class Schedule {
  kConstant,
  kLinear,
  kCosine,
  kConstantWithWarmup,
  kCosineWithMinLr,
  kCosineWarmupWithMinLr,
  kCosineWithRestarts,
  kInverseSqrt,
  kPolynomial,
  kWarmupStableDecay
};
enum class WeightGroup : uint8_t { kAttention, kEmbeddings, kExperts, kHead, kNorms, kRouter };  // lr_groups.h
enum class RouterAuxLossType { kHuggingface };
// The first two are sums over a rank's own tokens; the others are made of what all ranks have (kernels/moe).
enum class RouterLossType : uint8_t { kZ, kSequence, kHuggingface, kSwitch, kGlobal };
inline constexpr int64_t kRouterLossTypes = 5, kOwnRouterLossTypes = 2;
enum class ScoreFunction : uint8_t { kSoftmax, kSigmoid };
enum class RouterDType : uint8_t { kFp32 };
enum class TokenDropPolicy { kProbs, kPosition };
enum class AdapterKind { kNone, kLora, kQlora };
enum class LoraInit { kDefault, kPissa };                  // default: A random, B 0
enum class BasePrecision : uint8_t { kAuto, kNf4, kFp8 };  // auto: that of the run; with kQlora NF4
enum class DeviceChoice { kAuto, kCpu, kCuda };
enum class Precision { kFp32, kBf16, kFp8, kMxfp8 };
enum class Fp8Scaling { kBlock, kTensor };
enum class StateDType { kFp32, kBf16 };
enum class MasterWeights { kFp32, kNone };
enum class Recompute { kNone, kSelective, kFull };
enum class ExpertsImplementation { kLoop, kGrouped };
enum class ReportTo { kNone, kTensorBoard };
enum class SaveDType { kCheckpoint, kFp32, kBf16 };  // checkpoint: the dtype of the model that was loaded

// Values by name, as text; a number is written as format_value writes it. What names there may be, and what they hold,
// is checked where they are used.
using Mapping = std::map<std::string, std::string, std::less<>>;

struct ModelSettings {
  std::string model_name_or_path;
  std::string tokenizer_name_or_path;  // empty: model_name_or_path
  bool resize_vocabulary = false;
};

// What is trained beside weights that stay as they are (model/lora.h).
struct AdapterSettings {
  AdapterKind adapter = AdapterKind::kNone;
  std::string adapter_name_or_path;  // to start from; empty: random
  int64_t lora_r = 16;
  double lora_alpha = 32;
  LoraInit lora_init = LoraInit::kDefault;
  bool use_rslora = false;
  std::vector<std::string> lora_target_modules;  // empty: all of them
  std::vector<std::string> modules_to_save;
  double lora_dropout = 0;
  double loraplus_lr_ratio = 1;
  BasePrecision base_precision = BasePrecision::kAuto;

  bool is_set() const { return adapter != AdapterKind::kNone; }
  // How the base is held: kNf4 with kQlora, too.
  BasePrecision base() const {
    return adapter == AdapterKind::kQlora && base_precision == BasePrecision::kAuto ? BasePrecision::kNf4
                                                                                    : base_precision;
  }
};

// router_losses.h makes losses of them, router_scores.h scores.
struct RouterSettings {
  std::optional<double> router_aux_loss_coef;  // none: the checkpoint's own
  RouterAuxLossType router_aux_loss_type = RouterAuxLossType::kHuggingface;
  std::vector<std::string> moe_router_load_balancing_type;  // empty: aux_loss
  std::vector<std::string> moe_aux_loss_coeff;              // one for each of these
  double moe_z_loss_coeff = 0;
  std::optional<ScoreFunction> moe_router_score_function;  // none of these: the checkpoint's own
  std::optional<bool> moe_router_pre_softmax;
  std::optional<double> moe_router_topk_scaling_factor;
  std::optional<bool> moe_router_enable_expert_bias;
  std::optional<int64_t> moe_router_topk;
  std::optional<RouterDType> moe_router_dtype;  // none: fp32 too

  // Whether they say anything that a checkpoint's config.json has.
  bool sets_scores() const {
    return moe_router_score_function || moe_router_pre_softmax || moe_router_topk_scaling_factor ||
           moe_router_enable_expert_bias || moe_router_topk;
  }
  double moe_router_bias_update_rate = 1e-3;
  std::optional<double> moe_expert_capacity_factor;  // none: no token is dropped
  TokenDropPolicy moe_token_drop_policy = TokenDropPolicy::kProbs;
  bool moe_pad_expert_input_to_capacity = false;
  std::optional<double> moe_input_jitter_eps;  // none: the same as 0
  bool moe_router_force_load_balancing = false;
};

// What validation_file has: files or patterns of one set, or of several sets by name, each evaluated by itself.
struct ValidationFiles {
  std::vector<std::string> path;
  Mapping named;  // where there is no `path`

  bool empty() const { return path.empty() && named.empty(); }
};

// An entry of `datasets`. What is not set has its initial value here.
struct Dataset {
  std::vector<std::string> path;                             // files or patterns, as in train_file
  double weight = 0;                                         // above 0, where it is set
  DatasetFormat format = DatasetFormat::kAuto;               // auto: dataset_format
  ChatTemplateName chat_template = ChatTemplateName::kAuto;  // auto: the run's
  std::string split;                                         // empty: the run's
  int64_t max_samples = 0;                                   // the first records of its files, in their order; 0: all

  bool operator==(const Dataset&) const = default;
};

struct DataSettings {
  std::vector<std::string> train_file;  // files or patterns
  ValidationFiles validation_file;
  std::vector<Dataset> datasets;           // in the place of train_file
  double validation_split_percentage = 0;  // of the records of train_file
  std::string split;                       // weights of training, validation and test: "990,9,1"; empty: none
  DatasetFormat dataset_format = DatasetFormat::kAuto;
  bool reset_position_ids = false;           // these three are of windows: dataset_format kMegatron
  std::optional<bool> reset_attention_mask;  // none: what reset_position_ids is
  bool eod_mask_loss = false;
  bool train_on_prompt = false;
  ChatTemplateName chat_template = ChatTemplateName::kAuto;
  bool parse_special_tokens = false;
  LongDocuments long_documents = LongDocuments::kAuto;
  bool packing = false;
  bool shuffle = true;
  int64_t max_seq_length = 2048;
  std::string data_cache;  // a folder, or "off"; empty: mixtune's own (base/cache_folder.h)
};

// What a step trains on, and how many there are.
struct BatchSettings {
  int64_t per_device_train_batch_size = 8;
  int64_t gradient_accumulation_steps = 1;
  int64_t global_batch_size = 0;  // 0: what the two above and the number of ranks make
  int64_t max_steps = -1;         // > 0 overrides num_train_epochs
  double num_train_epochs = 3;
};

struct ParallelSettings {
  int64_t expert_model_parallel_size = 1;
  int64_t zero_stage = 1;
  double collective_timeout = 600;  // seconds
};

struct OptimizerSettings {
  double learning_rate = 5e-5;
  Schedule lr_scheduler_type = Schedule::kLinear;
  Mapping lr_groups;                // peaks of their own (lr_groups.h)
  std::vector<std::string> freeze;  // what is not trained (model/freeze.h)
  Mapping lr_scheduler_kwargs;      // schedule_kwargs.h says which
  int64_t warmup_steps = 0;         // > 0 overrides warmup_ratio
  double warmup_ratio = 0;          // of all steps, rounded up
  double adam_beta1 = 0.9;
  double adam_beta2 = 0.999;
  double adam_epsilon = 1e-8;
  double weight_decay = 0;
  double max_grad_norm = 1;          // 0: no clipping
  int64_t skip_nonfinite_steps = 0;  // in a row at most
  bool stop_on_divergence = false;
};

struct OutputSettings {
  std::string output_dir;
  bool overwrite_output_dir = false;
  bool eval_on_start = false;              // before the first step
  int64_t eval_steps = 0;                  // 0: only at the end, if there is validation data
  int64_t save_steps = 500;                // 0: only at the end
  std::string resume_from_checkpoint;      // "auto", or a folder; empty: the run begins
  std::vector<std::string> allow_changes;  // keys of the run's contract (run/contract.h)
  bool save_only_model = false;
  double save_every_minutes = 0;                // besides save_steps; 0: never
  std::string checkpoint_host_memory = "auto";  // or a size (run/saver.h)
  std::string time_limit;                       // as parse_duration has it; empty: none
  int64_t save_total_limit = 0;                 // 0: keep all
  bool load_best_model_at_end = false;
  std::string metric_for_best_model = "eval_loss";  // one of evaluation_metrics (check_evaluations.h)
  int64_t early_stopping_patience = 0;              // evaluations; 0: off
  double early_stopping_threshold = 0;
  SaveDType save_dtype = SaveDType::kCheckpoint;
  std::string max_shard_size = "5GB";
  int64_t logging_steps = 1;
  ReportTo report_to = ReportTo::kNone;  // besides metrics.jsonl
};

struct MachineSettings {
  uint64_t seed = 42;
  DeviceChoice device = DeviceChoice::kAuto;
  bool deterministic = false;
};

// How a step is computed, and what memory that takes.
struct ComputeSettings {
  Precision precision = Precision::kFp32;
  Fp8Scaling fp8_scaling = Fp8Scaling::kBlock;
  bool fp8_power_of_two_scales = true;
  StateDType gradient_dtype = StateDType::kFp32;
  StateDType optimizer_state_dtype = StateDType::kFp32;
  MasterWeights master_weights = MasterWeights::kFp32;
  Recompute recompute = Recompute::kNone;
  ExpertsImplementation experts_implementation = ExpertsImplementation::kGrouped;
  bool cuda_graphs = false;
};

struct Config {
  ModelSettings model;
  AdapterSettings adapter;
  RouterSettings router;
  DataSettings data;
  BatchSettings batch;
  ParallelSettings parallel;
  OptimizerSettings optimizer;
  OutputSettings output;
  MachineSettings machine;
  ComputeSettings compute;
  std::string begun_from;  // the model that the run began with, where model_name_or_path is a checkpoint of the run
  std::string adapter_checkpoint;  // the checkpoint that the run goes on from, where that is an adapter
  std::string file;                // that was read; empty: none
  std::map<std::string, std::string, std::less<>> origins;  // of the keys that were set: "run.yaml:3", "--seed"

  // Where `key` was set, for messages about its value: "run.yaml:3: seed", "--seed", or "seed" where it was not.
  std::string where(std::string_view key) const;
};

}  // namespace mixtune
