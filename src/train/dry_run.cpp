#include "train/dry_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/log.h"
#include "checkpoint/load.h"
#include "config/load.h"
#include "run/resume.h"
#include "train/instance_options.h"
#include "train/memory_plan.h"
#include "train/run_inputs.h"
#include "train/run_rows.h"
#include "train/schedule.h"

namespace mixtune {

namespace {

std::string describe_trained(int64_t tokens, int64_t targets) {
  return fmt::format("{} tokens, of which {} ({:.1f}%) are trained", tokens, targets,
                     100.0 * static_cast<double>(targets) / static_cast<double>(tokens));
}

// Of a validation set.
std::string title_of(const std::string& name) {
  return name.empty() ? "validation" : fmt::format("validation, {}", name);
}

// The rows of an epoch, and what it comes to in words.
struct Epoch {
  std::string text;
  int64_t rows;
};

Epoch describe_documents(const Config& config, const RunData& data) {
  PlanOptions one_epoch = plan_options(config, data);
  one_epoch.epochs = 1;
  const int64_t rows = RowSequence(*data.train, one_epoch).rows();
  std::string text =
      fmt::format("# an epoch: {} documents in {} rows of up to {} tokens; {}\n", data.train->size(), rows,
                  config.data.max_seq_length, describe_trained(data.train->tokens(), data.train->targets()));
  for (const auto& [name, documents] : data.validation)
    text += fmt::format("# {}: {} documents, {} tokens, {} with a loss\n", title_of(name), documents->size(),
                        documents->tokens(), documents->targets());
  return {std::move(text), rows};
}

RowCounts count_all(RowSource& source) {
  RowCounts all;
  for (int64_t row = 0; row < source.rows(); ++row) {
    const RowCounts counts = source.count(row);
    all.tokens += counts.tokens;
    all.targets += counts.targets;
    all.documents += counts.documents;
  }
  return all;
}

Epoch describe_windows(const Config& config, const RunData& data) {
  WindowRowOptions one_epoch = window_options(config, std::nullopt);
  one_epoch.epochs = 1;
  WindowRows rows(data.windows.train, one_epoch, config.where("max_seq_length"));
  const RowCounts all = count_all(rows);
  std::string text = fmt::format("# an epoch: {} windows of {} tokens; {}\n", rows.rows(), config.data.max_seq_length,
                                 describe_trained(all.tokens, all.targets));
  for (const std::string& name : data.evaluations()) {
    const auto validation = validation_rows(config, data, name);
    const RowCounts held_out = count_all(*validation);
    text += fmt::format("# {}: {} windows, {} tokens, {} with a loss\n", title_of(name), validation->rows(),
                        held_out.tokens, held_out.targets);
  }
  return {std::move(text), rows.rows()};
}

std::string describe_steps(const Config& config, const RunData& data, const Loader& loader, int ranks) {
  const auto [text, rows] = data.train ? describe_documents(config, data) : describe_windows(config, data);
  const int64_t rows_of_step = rows_per_step(config, ranks);
  const int64_t steps = config.batch.max_steps > 0 ? config.batch.max_steps : loader.steps();
  if (const std::string shorter = check_stages(config, steps); !shorter.empty()) log_warning("{}", shorter);
  return text + fmt::format("# the run: {} steps of {} rows on {} rank{}, {:.2f} epochs\n", steps, rows_of_step, ranks,
                            ranks == 1 ? "" : "s",
                            config.batch.max_steps > 0
                                ? static_cast<double>(steps * rows_of_step) / static_cast<double>(rows)
                                : config.batch.num_train_epochs);
}

// Whether the run is for a GPU, which need not be here.
bool for_gpu(const Config& config) {
  return config.compute.precision == Precision::kBf16 || config.machine.device == DeviceChoice::kCuda ||
         choose_device(config.machine.device).type == DeviceType::kCuda;
}

std::string describe_memory(const MixtralConfig& shape, const InstanceOptions& options, const Config& config,
                            const Loader& loader) {
  const int64_t tokens = loader.max_batch_tokens();
  const BatchLimits limits = {.tokens = tokens,
                              .longest_document = std::min(tokens, config.data.max_seq_length),
                              .documents = loader.max_batch_documents(),
                              .weighted = loader.weighted()};
  const MemoryPlan even = plan_memory(shape, options, limits, kEvenRouting),
                   worst = plan_memory(shape, options, limits, kWorstRouting);
  return fmt::format("# memory of each GPU: {} with even routing, {} at worst, {} at the least\n",
                     format_bytes(even.total()), format_bytes(worst.total()), format_bytes(worst.least()));
}

}  // namespace

std::string dry_run(const Config& given, const RankGrid& grid) {
  Config config = given;
  resolve_global_batch_size(config, grid.world);
  const Ranks ranks = planned_ranks(grid);
  const InstanceOptions options =
      for_gpu(config) ? planned_options(config, ranks) : instance_options(config, State::Purpose::kTraining, ranks);
  check_output_folder(output_request(config));
  const ModelFolder folder(config.model.model_name_or_path);
  const MixtralConfig shape = model_shape(config, folder);
  const State state(make_layout(shape, grid.experts(shape.num_local_experts), options.freeze, options.lora).specs,
                    {DeviceType::kMeta}, options.types, State::Purpose::kTraining,
                    {.dense = ranks.dense.get(),
                     .experts = ranks.experts.get(),
                     .shard_optimizer = config.parallel.zero_stage > 0 && grid.world > 1});
  check_weights(folder.weights(), state);
  const RunData data = load_run_data(config, shape);
  const Loader loader(training_rows(config, data, rows_per_step(config, grid.world)),
                      config.batch.per_device_train_batch_size, config.batch.gradient_accumulation_steps,
                      HostMemory::kPageable, {0, grid.world});
  const std::string trained = describe_trained(options.freeze, options.lora, shape),
                    of_all = trained.empty() ? "" : fmt::format("# {}\n", trained);
  config.router.router_aux_loss_coef =
      router_losses(config, shape.router_aux_loss_coef)[RouterLossType::kHuggingface].value_or(0);
  if (data.chat_template) config.data.chat_template = data.chat_template->chat_template.name;
  return print_config(as_begun(config)) + describe_steps(config, data, loader, grid.world) + of_all +
         (for_gpu(config)
              ? describe_memory(shape, options, config, loader)
              : fmt::format("# memory of each rank: {} for weights, gradients and moments, and activations\n",
                            format_bytes(state.bytes())));
}

}  // namespace mixtune
