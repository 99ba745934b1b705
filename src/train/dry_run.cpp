#include "train/dry_run.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "checkpoint/load.h"
#include "config/load.h"
#include "train/memory_plan.h"
#include "train/trainer.h"

namespace mixtune {

namespace {

std::string describe_steps(const Config& config, const RunData& data, const Loader& loader, int ranks) {
  PlanOptions one_epoch = plan_options(config, data);
  one_epoch.epochs = 1;
  const int64_t rows = RowSequence(*data.train, one_epoch).rows(), tokens = data.train->tokens();
  const int64_t rows_of_step =
      config.batch.per_device_train_batch_size * config.batch.gradient_accumulation_steps * ranks;
  const int64_t steps = config.run.max_steps > 0 ? config.run.max_steps : loader.steps();
  std::string text = fmt::format(
      "# an epoch: {} documents in {} rows of up to {} tokens; {} tokens, of which {} ({:.1f}%) are trained\n",
      data.train->size(), rows, config.data.max_seq_length, tokens, data.train->targets(),
      100.0 * static_cast<double>(data.train->targets()) / static_cast<double>(tokens));
  if (data.validation)
    text += fmt::format("# validation: {} documents, {} tokens, {} with a loss\n", data.validation->size(),
                        data.validation->tokens(), data.validation->targets());
  return text + fmt::format("# the run: {} steps of {} rows on {} rank{}, {:.2f} epochs\n", steps, rows_of_step, ranks,
                            ranks == 1 ? "" : "s",
                            config.run.max_steps > 0
                                ? static_cast<double>(steps * rows_of_step) / static_cast<double>(rows)
                                : config.run.num_train_epochs);
}

// Whether the run is for a GPU, be one here or not.
bool for_gpu(const Config& config) {
  return config.run.precision == Precision::kBf16 || config.run.device == DeviceChoice::kCuda ||
         choose_device(config.run.device).type == DeviceType::kCuda;
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
  const InstanceOptions options = planned_options(config, &ranks);
  check_output_folder(output_request(config));
  const ModelFolder folder(config.model.model_name_or_path);
  const MixtralConfig shape = model_shape(config, folder);
  const State state(make_layout(shape, grid.experts(shape.num_local_experts)).specs, {DeviceType::kMeta}, options.types,
                    State::Purpose::kTraining,
                    {.dense = ranks.world.get(),
                     .experts = ranks.expert_replica.get(),
                     .shard_optimizer = config.parallel.zero_stage > 0 && grid.world > 1});
  check_weights(folder.weights(), state);
  const RunData data = load_run_data(config, shape);
  const Loader loader(*data.train, plan_options(config, data), config.batch.per_device_train_batch_size,
                      config.batch.gradient_accumulation_steps, HostMemory::kPageable, {0, grid.world});
  if (!config.model.router_aux_loss_coef) config.model.router_aux_loss_coef = shape.router_aux_loss_coef;
  if (data.chat_template) config.data.chat_template = data.chat_template->chat_template.name;
  return print_config(config) + describe_steps(config, data, loader, grid.world) +
         (for_gpu(config)
              ? describe_memory(shape, options, config, loader)
              : fmt::format("# memory of each rank: {} for weights, gradients and moments, and activations\n",
                            format_bytes(state.bytes())));
}

}  // namespace mixtune
