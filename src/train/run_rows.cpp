#include "train/run_rows.h"

#include <algorithm>
#include <iterator>
#include <limits>

#include "base/error.h"
#include "data/packed_rows.h"

namespace mixtune {

int64_t rows_per_step(const Config& config, int ranks) {
  return config.batch.per_device_train_batch_size * config.batch.gradient_accumulation_steps * ranks;
}

PlanOptions plan_options(const Config& config, const RunData& data) {
  PlanOptions options{.max_seq_length = config.data.max_seq_length,
                      .packing = config.data.packing,
                      .shuffle = config.data.shuffle,
                      .seed = config.machine.seed,
                      .blend = data.blend};
  if (config.batch.max_steps <= 0) options.epochs = config.batch.num_train_epochs;
  return options;
}

WindowRowOptions window_options(const Config& config, std::optional<int64_t> rows) {
  return {.seq_length = config.data.max_seq_length,
          .samples = rows,
          .epochs = config.batch.num_train_epochs,
          .seed = static_cast<uint32_t>(config.machine.seed),
          .shuffle = config.data.shuffle,
          .masking = window_masking(config)};
}

std::unique_ptr<RowSource> training_rows(const Config& config, const RunData& data, int64_t rows_per_step) {
  if (data.train) return std::make_unique<PackedRows>(*data.train, plan_options(config, data));
  std::optional<int64_t> rows;
  if (int64_t all; config.batch.max_steps > 0)
    rows =
        __builtin_mul_overflow(config.batch.max_steps, rows_per_step, &all) ? std::numeric_limits<int64_t>::max() : all;
  return std::make_unique<WindowRows>(data.windows.train, window_options(config, rows), config.where("max_seq_length"));
}

std::unique_ptr<RowSource> validation_rows(const Config& config, const RunData& data, const std::string& name) {
  const auto found = std::ranges::find(data.validation, name, &ValidationDocuments::name);
  if (found != data.validation.end())
    return std::make_unique<PackedRows>(
        *found->documents,
        PlanOptions{.max_seq_length = config.data.max_seq_length, .packing = config.data.packing, .epochs = 1});
  std::vector<WindowSet> sets;
  std::ranges::copy_if(data.windows.validation, std::back_inserter(sets),
                       [&](const WindowSet& set) { return set.evaluation == name; });
  WindowRowOptions options = window_options(config, std::nullopt);
  options.epochs = 1;
  options.shuffle = false;
  auto rows = std::make_unique<WindowRows>(sets, options, config.where("max_seq_length"));
  for (int64_t row = 0; row < rows->rows(); ++row)
    if (rows->count(row).targets > 0) return rows;
  throw UserError(sets[0].data->name(), "no token of the validation data is a target",
                  "check its mask, or leave validation out");
}

}  // namespace mixtune
