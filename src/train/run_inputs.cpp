#include "train/run_inputs.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "base/error.h"
#include "base/log.h"
#include "checkpoint/load.h"
#include "checkpoint/run_folder.h"
#include "config/lr_groups.h"
#include "config/router_losses.h"
#include "data/data_files.h"
#include "data/open_documents.h"
#include "run/resume.h"
#include "train/early_stopping.h"
#include "train/instance_options.h"
#include "train/lora_options.h"
#include "train/model_tokenizer.h"

namespace mixtune {

OutputRequest output_request(const Config& config) {
  OutputRequest request{.path = config.output.output_dir,
                        .overwrite = config.output.overwrite_output_dir,
                        .makes_events = config.output.report_to == ReportTo::kTensorBoard,
                        .inputs = files_of(train_datasets(config))};
  if (config.output.load_best_model_at_end) request.best_metric = config.output.metric_for_best_model;
  request.inputs.push_back(as_begun(config).model.model_name_or_path);
  if (!config.model.tokenizer_name_or_path.empty()) request.inputs.push_back(config.model.tokenizer_name_or_path);
  for (const std::string& file : files_of(validation_datasets(config))) request.inputs.push_back(file);
  request.may_start_over = config.output.resume_from_checkpoint == "auto";
  if (const std::string chosen = checkpoint_of(config); !chosen.empty()) {
    std::error_code error;
    const std::filesystem::path checkpoint = std::filesystem::canonical(chosen, error);
    if (!error && std::filesystem::equivalent(checkpoint.parent_path(), request.path, error))
      request.resumes = checkpoint_step(checkpoint.filename().string());
    if (!request.resumes) request.inputs.push_back(chosen);
  }
  if (!config.adapter.adapter_name_or_path.empty()) request.inputs.push_back(config.adapter.adapter_name_or_path);
  // A run that goes on in its folder may be given the configuration that it wrote there.
  if (!config.file.empty() && !request.resumes) request.inputs.push_back(config.file);
  return request;
}

ModelFolder open_model(const Config& config, const Ranks& ranks) {
  ranks.set_activity("loading");
  if (ranks.grid.rank == 0) check_output_folder(output_request(config));
  return ModelFolder(config.model.model_name_or_path);
}

void adapt(ModelFolder& folder, const MixtralConfig& shape, const Config& config, const RunData& data) {
  const ModelSettings& model = config.model;
  if (shape.added_tokens > 0) folder.set_vocab_size(shape.vocab_size);
  if (config.router.sets_scores() || uses_sinkhorn(config.router)) {
    folder.set_router(shape.router_scores, shape.num_experts_per_tok);
    folder.set_expert_bias(shape.expert_bias, shape.num_local_experts);
  }
  if (model.resize_vocabulary && !model.tokenizer_name_or_path.empty())
    folder.set_tokenizer(tokenizer_path(model, false));
  if (const auto& chosen = data.chat_template; chosen && !(chosen->is_folders && model.tokenizer_name_or_path.empty()))
    folder.set_chat_template(chosen->source, data.tokenizer_names);
}

namespace {

// While it lives, this rank computes on the threads of all ranks that wait for it, as far as there are cores.
class BorrowedThreads {
 public:
  explicit BorrowedThreads(int ranks) : own_(omp_get_max_threads()) {
    if (ranks > 1) omp_set_num_threads(std::max(own_, std::min(omp_get_num_procs(), own_ * ranks)));
  }
  ~BorrowedThreads() { omp_set_num_threads(own_); }
  BorrowedThreads(const BorrowedThreads&) = delete;
  BorrowedThreads& operator=(const BorrowedThreads&) = delete;

 private:
  int own_;
};

}  // namespace

RunData checked_data(const Config& config, const HfFolder& weights, Instance& instance, LoadData load) {
  check_weights(weights, instance.state());  // a matter of headers: before the data, which takes longer
  const Ranks& ranks = instance.ranks();
  const bool others_wait = ranks.grid.rank == 0 && caches_documents(config);
  const auto meet = [&](bool now) {
    if (now && caches_documents(config)) barrier(instance.ctx(), *ranks.all, "data that rank 0 tokenises");
  };
  meet(ranks.grid.rank != 0);
  const BorrowedThreads threads(others_wait ? ranks.grid.world : 1);
  RunData data = load(config, instance.model().config(), [&ranks] { ranks.advance(); });
  meet(ranks.grid.rank == 0);
  // Rows are drawn from one plan, so all ranks must have read the same.
  ranks.compare({{"data", data.digest()}, {"vocabulary", std::to_string(instance.model().config().vocab_size)}});
  return data;
}

namespace {

constexpr int64_t kMostBiasedExperts = 1 << 14;  // their numbers fit into what is read of a config.json

// A bias that is new begins at 0.
void set_expert_bias(const Config& config, MixtralConfig& shape) {
  const int64_t experts = shape.router_scores.expert_bias ? shape.num_hidden_layers * shape.num_local_experts : 0;
  if (experts > 0 && shape.router_scores.scoring != Scoring::kSigmoid)
    throw UserError(config.where("moe_router_enable_expert_bias"), "a bias is of sigmoids, and the scores are softmax",
                    "set it to false, or moe_router_score_function to sigmoid");
  if (experts > 0 && config.router.moe_router_force_load_balancing)
    throw UserError(config.where("moe_router_force_load_balancing"), "a bias would be moved by experts that are drawn",
                    "set it to false, or moe_router_enable_expert_bias to false");
  if (experts > kMostBiasedExperts)
    throw UserError(config.where("moe_router_enable_expert_bias"),
                    fmt::format("the model has {} experts in all layers, and at most {} have a bias, which is saved in "
                                "config.json",
                                experts, kMostBiasedExperts),
                    "set it to false");
  shape.expert_bias.resize(experts);
}

void set_router(const Config& config, MixtralConfig& shape) {
  const int64_t k = config.router.moe_router_topk.value_or(shape.num_experts_per_tok);
  if (k > shape.num_local_experts)
    throw UserError(config.where("moe_router_topk"),
                    fmt::format("is {}, and the model has {} experts", k, shape.num_local_experts),
                    fmt::format("set it to {} or less", shape.num_local_experts));
  shape.num_experts_per_tok = k;
  shape.router_scores = uses_sinkhorn(config.router) ? sinkhorn_scores(config, shape.router_scores, k)
                                                     : router_scores(config.router, shape.router_scores);
  set_expert_bias(config, shape);
}

}  // namespace

MixtralConfig model_shape(const Config& config, const ModelFolder& folder) {
  const std::string where = config.model.model_name_or_path + "/config.json";
  MixtralConfig stored = parse_mixtral_config(folder.config_json(), where);
  set_router(config, stored);
  check_head_rate(config, stored.tie_word_embeddings);
  if (config.adapter.base() != BasePrecision::kAuto && !config.adapter.is_set())
    throw UserError(config.where("base_precision"), "weights that are held in 4 or 8 bits are not trained",
                    "set adapter: lora, or remove it");
  // Throws where `freeze` names nothing.
  make_layout(stored, {0, stored.num_local_experts}, freeze_of(config), lora_of(config));
  check_trained(config, stored);
  return resize_vocabulary(config.model, stored);
}

void warn_of_frozen_groups(const Config& config, const MixtralConfig& shape) {
  const Freeze freeze = freeze_of(config);
  const Lora lora = lora_of(config);
  for (size_t g = 0; g < kWeightGroups.size(); ++g)
    if (config.optimizer.lr_groups.contains(kWeightGroups[g]) &&
        freezes_all(freeze, lora, shape, static_cast<WeightGroup>(g)))
      log_warning("{}: {}: no effect, as all its weights are frozen", config.where("lr_groups"), kWeightGroups[g]);
}

}  // namespace mixtune
