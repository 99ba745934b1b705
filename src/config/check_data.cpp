#include "config/check_data.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "config/datasets.h"

namespace mixtune {

namespace {

void check_training_data(const Config& config) {
  const DataSettings& data = config.data;
  if (!data.datasets.empty() && !data.train_file.empty())
    throw UserError(config.where("datasets"), "there is a train_file too", "keep one of the two");
  check_weights_of(data.datasets, config.where("datasets"));
}

// The names of sets are parts of names of metrics.
void check_set_names(const Config& config) {
  constexpr std::string_view kAllowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
  constexpr size_t kLongest = 64;
  for (const auto& [name, path] : config.data.validation_file.named)
    if (name.empty() || name.size() > kLongest || name.find_first_not_of(kAllowed) != name.npos)
      throw UserError(config.where("validation_file"), fmt::format("'{}' is no name of a set", printable(name)),
                      fmt::format("use letters, digits, '_', '-' and '.', {} at most", kLongest));
}

void check_validation(const Config& config) {
  check_set_names(config);
  const bool file = !config.data.validation_file.empty();
  const bool share = config.data.validation_split_percentage > 0;
  const bool entry_splits =
      std::ranges::any_of(config.data.datasets, [](const Dataset& dataset) { return !dataset.split.empty(); });
  const bool split = !config.data.split.empty() || entry_splits;
  const auto refuse_both = [&](const std::string& where, const char* other) {
    throw UserError(where, fmt::format("there is a {} too", other), "keep one of the two");
  };
  const std::string split_where =
      !config.data.split.empty() ? config.where("split") : config.where("datasets") + ": split";
  if (file && share) refuse_both(config.where("validation_split_percentage"), "validation_file");
  if (file && split) refuse_both(split_where, "validation_file");
  if (share && split) refuse_both(split_where, "validation_split_percentage");
  for (const auto& [key, is_set] :
       {std::pair("eval_steps", config.output.eval_steps > 0), std::pair("eval_on_start", config.output.eval_on_start)})
    if (is_set && !file && !share && !split)
      throw UserError(config.where(key), "there is no validation data",
                      fmt::format("set validation_file, validation_split_percentage or split, or remove {}", key));
}

constexpr const char* kFormat = "dataset_format: megatron";

// Keys of windows, where there are none.
void refuse_window_keys(const Config& config) {
  const DataSettings& data = config.data;
  const char* key = data.reset_position_ids                 ? "reset_position_ids"
                    : data.reset_attention_mask.has_value() ? "reset_attention_mask"
                    : data.eod_mask_loss                    ? "eod_mask_loss"
                                                            : nullptr;
  if (key != nullptr)
    throw UserError(config.where(key), fmt::format("is of the windows of '{}'", kFormat),
                    "set that, or remove it: documents that share a row never see each other");
  if (std::ranges::find(data.datasets, DatasetFormat::kMegatron, &Dataset::format) != data.datasets.end())
    throw UserError(config.where("datasets"), "'format: megatron' of an entry",
                    fmt::format("set '{}', which is for all data sets", kFormat));
}

// What a window, always full and of tokens alone, leaves without a meaning.
void check_windows(const Config& config) {
  const DataSettings& data = config.data;
  const auto refuse = [&](std::string_view key, std::string_view mend) {
    throw UserError(config.where(key), fmt::format("has no meaning with '{}'", kFormat), mend);
  };
  if (data.packing) refuse("packing", "remove it: windows are always full");
  if (data.long_documents != LongDocuments::kAuto) refuse("long_documents", "remove it: windows cut where they end");
  if (data.validation_split_percentage > 0) refuse("validation_split_percentage", "use split: 990,9,1");
  for (const Dataset& dataset : data.datasets) {
    const char* key = dataset.format != DatasetFormat::kAuto && dataset.format != DatasetFormat::kMegatron ? "format"
                      : dataset.chat_template != ChatTemplateName::kAuto                                   ? "template"
                      : dataset.max_samples > 0 ? "max_samples"
                                                : nullptr;
    if (key != nullptr)
      throw UserError(fmt::format("{}: {}", config.where("datasets"), key),
                      fmt::format("has no meaning with '{}'", kFormat), "leave it out: windows are of indexed tokens");
  }
}

}  // namespace

void check_data(const Config& config) {
  check_training_data(config);
  check_validation(config);
  config.data.dataset_format == DatasetFormat::kMegatron ? check_windows(config) : refuse_window_keys(config);
}

}  // namespace mixtune
