#include "data/window_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "data/document_sink.h"
#include "data/indexed_files.h"

namespace mixtune {

namespace {

constexpr int64_t kSampledSequences = 1024;  // sequences whose first tokens are part of the digest
constexpr int64_t kSampledTokens = 64;       // of each

std::string prefix_of(const std::string& path, const std::string& where) {
  if (const auto prefix = find_indexed(path)) return *prefix;
  throw UserError(
      where, fmt::format("'{}' is no indexed data, of which windows are cut", printable(path, 200)),
      "name the prefix of a .bin and an .idx ('mixtune preprocess --output_format indexed' writes them), or "
      "leave 'dataset_format: megatron' out");
}

// The sets of one entry: where they come from, and how they are split.
struct Entry {
  const Dataset& dataset;
  std::string where;  // the place of its paths
  std::string split, split_where;
};

// The parts of a set that `split` leaves.
struct SplitSet {
  WindowSet train, validation;
};

SplitSet split_set(const WindowSet& all, const Entry& entry) {
  const GptSplit split = split_sequences(entry.split, all.range.end, entry.split_where);
  const auto part = [&](size_t which, const SequenceRange& range, const char* what) -> WindowSet {
    if (split.weights[which] == 0) return {};
    const WindowSet set = {all.data, range, all.weight};
    if (set.tokens() == 0)
      throw UserError(entry.split_where,
                      fmt::format("'{}' gives {} {} of the {} sequences of {}, without a token", entry.split, what,
                                  range.size(), all.range.size(), all.data->name()),
                      "change the weights, or set that one to 0");
    return set;
  };
  SplitSet found = {part(0, split.train, "training"), part(1, split.validation, "validation")};
  if (all.weight > 0 && !found.train.data)
    throw UserError(entry.split_where,
                    fmt::format("'{}' trains on nothing of {}, which has a weight", entry.split, all.data->name()),
                    "leave the weights out, or name it as validation_file");
  log_info("{}: split {}: {} sequences to train on, {} for validation, {} for a test, which a run leaves alone",
           all.data->name(), entry.split, split.train.size(), split.validation.size(), split.test.size());
  return found;
}

void add_entry(WindowSets& sets, const Entry& entry, int64_t vocab_size) {
  const Dataset& dataset = entry.dataset;
  if (dataset.weight > 0 && dataset.path.size() > 1)
    throw UserError(entry.where, fmt::format("{} paths have one weight", dataset.path.size()),
                    "give each its own entry, with its own weight");
  for (const std::string& path : dataset.path) {
    const auto data = std::make_shared<const WindowData>(prefix_of(path, entry.where), vocab_size);
    const IndexedReader& reader = data->reader();
    log_info("{}: {} sequences, {} tokens{}", data->name(), reader.sequences(), reader.tokens(),
             reader.has_mask() ? ", of which its mask says what is trained" : "");
    const WindowSet all = {data, {0, reader.sequences()}, dataset.weight};
    if (entry.split.empty()) {
      sets.train.push_back(all);
      continue;
    }
    const SplitSet parts = split_set(all, entry);
    if (parts.train.data) sets.train.push_back(parts.train);
    if (parts.validation.data) sets.validation.push_back(parts.validation);
  }
}

void announce(const GptMasking& masking) {
  log_info("windows: the documents in one {}{}",
           masking.reset_attention_mask ? "are isolated: no token sees another document, positions begin anew"
                                        : "see each other, as by Megatron's default; reset_attention_mask: true "
                                          "isolates them",
           masking.eod_mask_loss ? "; the first token of a document is no target" : "");
}

}  // namespace

WindowData::WindowData(const std::string& prefix, int64_t vocab_size)
    : name_(printable(prefix, 200)), reader_(prefix, vocab_size) {
  if (reader_.tokens() == 0) throw UserError(name_, "holds no token", "name one that does");
  if (reader_.has_weights())
    throw UserError(name_ + ".weights", "weighs tokens, and Megatron's windows do not",
                    "remove it, or leave 'dataset_format: megatron' out");
  lengths_.resize(static_cast<size_t>(reader_.sequences()));
  reader_.lengths(0, lengths_);
  for (const int32_t length : lengths_) digest_ = random_bits(digest_, static_cast<uint64_t>(length));
  std::vector<int32_t> ids, labels;
  for (int64_t i = 0; i < std::min(reader_.sequences(), kSampledSequences); ++i) {
    const int64_t sequence = i * std::max<int64_t>(1, reader_.sequences() / kSampledSequences);
    ids.resize(static_cast<size_t>(std::min(kSampledTokens, reader_.length(sequence))));
    labels.resize(ids.size());
    reader_.read(sequence, 0, ids, labels);
    for (size_t t = 0; t < ids.size(); ++t) digest_ = add_token(digest_, {ids[t], labels[t]});
  }
}

int64_t WindowSet::tokens() const {
  const auto own = data->lengths().subspan(static_cast<size_t>(range.begin), static_cast<size_t>(range.size()));
  return std::accumulate(own.begin(), own.end(), int64_t{0});
}

uint64_t WindowSets::digest() const {
  uint64_t digest = 0;
  for (const auto* sets : {&train, &validation})
    for (const WindowSet& set : *sets)
      digest = random_bits(random_bits(random_bits(digest, set.data->digest()), static_cast<uint64_t>(set.range.begin)),
                           static_cast<uint64_t>(set.range.end));
  return digest;
}

GptMasking window_masking(const Config& config) {
  const DataSettings& data = config.data;
  const GptMasking masking = {.reset_position_ids = data.reset_position_ids,
                              .reset_attention_mask = data.reset_attention_mask.value_or(data.reset_position_ids),
                              .eod_mask_loss = data.eod_mask_loss};
  check_masking(masking, config.where("reset_position_ids"));
  return masking;
}

WindowSets open_windows(std::span<const Dataset> train, std::span<const ValidationSet> validation, const Config& config,
                        int64_t vocab_size) {
  const GptMasking masking = window_masking(config);
  const std::string datasets = config.where(config.data.datasets.empty() ? "train_file" : "datasets");
  WindowSets sets;
  for (const Dataset& dataset : train) {
    const bool own = !dataset.split.empty();
    add_entry(sets,
              {dataset, datasets, own ? dataset.split : config.data.split,
               own ? datasets + ": split" : config.where("split")},
              vocab_size);
  }
  for (const ValidationSet& set : validation) {
    WindowSets held_out;
    add_entry(held_out, {set.dataset, config.where("validation_file"), "", ""}, vocab_size);
    for (WindowSet& windows : held_out.train) {
      windows.evaluation = set.name;
      sets.validation.push_back(std::move(windows));
    }
  }
  for (WindowSet& set : sets.validation) set.weight = 0;  // all of it is evaluated, once
  if (!train.empty() && sets.train.empty())
    throw UserError(config.where("split"), "leaves nothing to train on", "give training a weight above 0");
  announce(masking);
  return sets;
}

}  // namespace mixtune
