#include "train/run_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "config/check_evaluations.h"
#include "data/data_files.h"
#include "data/joined_documents.h"
#include "data/load_documents.h"
#include "data/load_report.h"
#include "data/open_documents.h"
#include "data/text_source.h"
#include "data/validation_split.h"
#include "train/model_tokenizer.h"

namespace mixtune {

namespace {

TextSource open_text(const std::vector<Dataset>& datasets, const Config& config, const MixtralConfig& shape) {
  if (!needs_tokenizer(datasets, config.data.dataset_format)) return {};
  const std::string folder = tokenizer_path(config.model);
  return open_text_source(open_model_tokenizer(folder, shape), folder, datasets, config);
}

bool cuts_windows(const Config& config) {
  return config.data.dataset_format == DatasetFormat::kMegatron;
}

// How an entry is split; empty: not at all.
const std::string& split_of(const Dataset& dataset, const Config& config) {
  return dataset.split.empty() ? config.data.split : dataset.split;
}

// One data set of all entries; or, where any has a weight or is split, one of each entry.
std::vector<std::vector<Dataset>> parts_of(const std::vector<Dataset>& datasets, const Config& config) {
  const auto is_cut = [&](const Dataset& dataset) {
    return !split_of(dataset, config).empty();
  };
  if (datasets[0].weight == 0 && std::ranges::none_of(datasets, is_cut)) return {datasets};
  std::vector<std::vector<Dataset>> parts;
  for (const Dataset& dataset : datasets) parts.push_back({dataset});
  return parts;
}

std::shared_ptr<const Documents> joined(std::vector<std::shared_ptr<const Documents>> parts) {
  if (parts.size() == 1) return std::move(parts[0]);
  return std::make_shared<JoinedDocuments>(std::move(parts));
}

// Splits `part`, one data set, which is one entry where it is split by its own weights.
Split split_part(std::shared_ptr<const Documents> documents, const std::vector<Dataset>& part, const Config& config) {
  const double percentage = config.data.validation_split_percentage;
  if (percentage > 0) return split_validation(std::move(documents), percentage, config.machine.seed);
  const std::string& split = split_of(part[0], config);
  if (split.empty()) return {std::move(documents), nullptr};
  const std::string where = part[0].split.empty() ? config.where("split") : config.where("datasets") + ": split";
  Split parts = split_records(std::move(documents), split, where, list_names(part[0].path));
  if (part[0].weight > 0 && !parts.train)
    throw UserError(where,
                    fmt::format("'{}' trains on nothing of {}, which has a weight", split, list_names(part[0].path)),
                    "leave the weights out, or name it as validation_file");
  return parts;
}

TokenizerNames names_of(const TextSource& source) {
  if (!source.chat_template) return {};
  const Tokenizer& tokenizer = *source.tokenizer;
  // mixtune's own texts of Mistral's templates have that space themselves.
  const ChatTemplateName name = source.chat_template->chat_template.name;
  return {.bos = tokenizer.piece(tokenizer.bos()),
          .eos = tokenizer.piece(tokenizer.eos()),
          .unk = tokenizer.unk() < 0 ? "" : tokenizer.piece(tokenizer.unk()),
          .legacy = source.chat_template->is_folders ||
                    (name != ChatTemplateName::kMistralV1 && name != ChatTemplateName::kMistralV2 &&
                     name != ChatTemplateName::kMistralV3)};
}

}  // namespace

RunData load_validation_data(const Config& config, const MixtralConfig& shape, const std::function<void()>& advanced) {
  const std::vector<ValidationSet> sets = validation_sets(config);
  if (cuts_windows(config))
    return {.train = nullptr, .validation = {}, .windows = open_windows({}, sets, config, shape.vocab_size)};
  const TextSource source = open_text(validation_datasets(config), config, shape);
  RunData data;
  for (const ValidationSet& set : sets)
    data.validation.push_back(
        {set.name, open_documents({&set.dataset, 1}, config, source.encoder(config.data), shape.vocab_size, advanced)});
  return data;
}

namespace {

RunData read_run_data(const Config& config, const MixtralConfig& shape, const std::function<void()>& advanced) {
  if (config.data.max_seq_length > shape.max_position_embeddings)
    log_warning("max_seq_length {} is beyond the model's max_position_embeddings, {}", config.data.max_seq_length,
                shape.max_position_embeddings);
  const std::vector<Dataset> train = train_datasets(config);
  const std::vector<ValidationSet> sets = validation_sets(config);
  if (cuts_windows(config))
    return {.train = nullptr, .validation = {}, .windows = open_windows(train, sets, config, shape.vocab_size)};
  std::vector<Dataset> all = train;
  for (const ValidationSet& set : sets) all.push_back(set.dataset);
  const TextSource source = open_text(all, config, shape);
  const auto load = [&](const std::vector<Dataset>& datasets) {
    return open_documents(datasets, config, source.encoder(config.data), shape.vocab_size, advanced);
  };
  RunData data{
      .train = nullptr, .validation = {}, .chat_template = source.chat_template, .tokenizer_names = names_of(source)};
  for (const ValidationSet& set : sets) data.validation.push_back({set.name, load({set.dataset})});
  std::vector<std::shared_ptr<const Documents>> trained, held_out;
  for (const std::vector<Dataset>& part : parts_of(train, config)) {
    Split split = split_part(load(part), part, config);
    if (split.validation) held_out.push_back(std::move(split.validation));
    if (!split.train) continue;
    if (part[0].weight > 0) data.blend.push_back({split.train->size(), part[0].weight});
    trained.push_back(std::move(split.train));
  }
  if (trained.empty())
    throw UserError(config.where("split"), "leaves nothing to train on", "give training a weight above 0");
  data.train = joined(std::move(trained));
  if (!held_out.empty()) data.validation.push_back({"", joined(std::move(held_out))});
  return data;
}

}  // namespace

RunData load_run_data(const Config& config, const MixtralConfig& shape, const std::function<void()>& advanced) {
  RunData data = read_run_data(config, shape, advanced);
  check_has_validation(config, !data.evaluations().empty());
  return data;
}

std::string RunData::training_digest() const {
  return fmt::format("{:x}", train ? train->digest() : windows.digest());
}

std::string RunData::digest() const {
  std::string text = fmt::format("{:x} {:x}", train ? train->digest() : 0, windows.digest());
  for (const ValidationDocuments& set : validation) text += fmt::format(" {} {:x}", set.name, set.documents->digest());
  return text;
}

std::vector<std::string> RunData::evaluations() const {
  std::vector<std::string> names;
  for (const ValidationDocuments& set : validation) names.push_back(set.name);
  for (const WindowSet& set : windows.validation)
    if (names.empty() || names.back() != set.evaluation) names.push_back(set.evaluation);
  return names;
}

}  // namespace mixtune
