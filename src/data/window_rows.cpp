#include "data/window_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "data/batch.h"
#include "data/label.h"
#include "data/mask_counter.h"

namespace mixtune {

namespace {

constexpr int64_t kMaxRows = std::numeric_limits<int32_t>::max();
constexpr size_t kMaxSets = 32766;  // Megatron's
constexpr size_t kMaskBytes = 512;  // bytes of a mask that are read at a time

bool has_weights(std::span<const WindowSet> sets) {
  return sets[0].weight > 0;
}

// The number of targets in a window, whose first token is none.
int64_t count_targets(const IndexedReader& reader, std::span<const WindowPart> parts, const GptMasking& masking) {
  std::array<uint8_t, kMaskBytes> block;
  MaskCounter mask(reader, block);
  int64_t targets = 0;
  for (const WindowPart& part : parts) {
    const int64_t left_out = &part == &parts.front() || masking.eod_mask_loss;
    const int64_t begin = part.begin + left_out, count = part.count - left_out;
    targets += reader.has_mask() ? mask.count(reader.token_begin(part.sequence) + begin, count) : count;
  }
  return targets;
}

RowCounts counts_of(int64_t tokens, int64_t targets) {
  return {.tokens = tokens, .targets = targets, .weight = static_cast<double>(targets)};
}

void add_document(int64_t length, RowCounts& counts) {
  ++counts.documents;
  counts.squared_lengths += static_cast<double>(length) * static_cast<double>(length);
}

// Of a window. Its last token is only a target, so it begins no document, and is in none.
void add_documents(std::span<const WindowPart> parts, const GptMasking& masking, RowCounts& counts) {
  if (!masking.reset_attention_mask) return add_document(counts.tokens, counts);
  for (const WindowPart& part : parts)
    if (const int64_t length = part.count - (&part == &parts.back()); length > 0) add_document(length, counts);
}

}  // namespace

WindowRows::WindowRows(std::vector<WindowSet> sets, const WindowRowOptions& options, const std::string& where)
    : sets_(std::move(sets)), options_(options) {
  MT_CHECK(!sets_.empty() && options.seq_length >= 1);
  if (sets_.size() > kMaxSets)
    throw UserError(where, fmt::format("{} data sets are more than {}", sets_.size(), kMaxSets), "join some of them");
  count_rows(where);
  cut(where);
  make_room();
}

void WindowRows::count_rows(const std::string& where) {
  for (const WindowSet& set : sets_) {
    const int64_t tokens = set.tokens();
    epoch_windows_.push_back(std::max<int64_t>(0, (tokens - 1) / options_.seq_length));
    epoch_rows_ += epoch_windows_.back();
    if (epoch_windows_.back() == 0 && !has_weights(sets_))
      throw UserError(where,
                      fmt::format("{} has {} tokens for it, and a window takes max_seq_length + 1, {}",
                                  set.data->name(), tokens, options_.seq_length + 1),
                      "lower max_seq_length, or leave it out");
  }
  if (epoch_rows_ == 0)
    throw UserError(where, fmt::format("no data set has {} tokens, which a window takes", options_.seq_length + 1),
                    "lower max_seq_length");
  // The slack is for decimals such as 1.1, whose fraction in binary is a little more than 0.1.
  constexpr double kSlack = 1e-9;
  const double rows = options_.samples ? static_cast<double>(*options_.samples)
                                       : std::ceil(options_.epochs * static_cast<double>(epoch_rows_) * (1 - kSlack));
  if (rows > static_cast<double>(kMaxRows))
    throw UserError(where, "2^31 windows or more", "train on fewer samples at a time");
  rows_ = static_cast<int64_t>(rows);
}

void WindowRows::cut(const std::string& where) {
  const bool weighted = has_weights(sets_), blends = weighted || sets_.size() > 1;
  const bool once = !weighted && rows_ <= epoch_rows_;  // no set gives a window twice
  std::vector<double> weights(epoch_windows_.begin(), epoch_windows_.end());
  if (weighted) std::ranges::transform(sets_, weights.begin(), &WindowSet::weight);
  const std::vector<int64_t> built = blends ? blend_sizes(weights, rows_) : std::vector{rows_};
  for (size_t s = 0; s < sets_.size(); ++s) {
    GptWindowOptions options{.seq_length = options_.seq_length, .seed = options_.seed, .shuffle = options_.shuffle};
    if (!once || !blends) options.samples = built[s];
    windows_.emplace_back(sets_[s].data->lengths(), sets_[s].range, options, sets_[s].data->name());
  }
  if (!blends) return;
  const bool all = once && !options_.samples && rows_ == epoch_rows_;
  draw(weighted ? Blend::of_weights(weights, where)
       : all    ? Blend::of_sizes(epoch_windows_)
                : Blend::in_proportion(epoch_windows_));
}

void WindowRows::draw(Blend blend) {
  set_of_.reserve(static_cast<size_t>(rows_));
  window_of_.reserve(static_cast<size_t>(rows_));
  for (int64_t row = 0; row < rows_; ++row) {
    const BlendSample next = blend.next();
    MT_CHECK(next.sample < windows_[static_cast<size_t>(next.data_set)].size());
    set_of_.push_back(static_cast<uint16_t>(next.data_set));
    window_of_.push_back(static_cast<uint32_t>(next.sample));
  }
}

// Makes room for the parts of any window: but for the first and the last, its sequences are whole.
void WindowRows::make_room() {
  int64_t shortest = options_.seq_length;
  for (const WindowSet& set : sets_)
    for (int64_t s = set.range.begin; s < set.range.end; ++s)
      if (const int32_t length = set.data->lengths()[static_cast<size_t>(s)]; length > 0)
        shortest = std::min<int64_t>(shortest, length);
  const int64_t most_parts = std::min(options_.seq_length + 1, 2 + (options_.seq_length - 1) / shortest);
  if (options_.masking.reset_attention_mask) max_documents_ = std::min(options_.seq_length, most_parts);
  parts_.reserve(static_cast<size_t>(most_parts));
  sample_.ids.reserve(static_cast<size_t>(options_.seq_length) + 1);
  sample_.targets.reserve(static_cast<size_t>(options_.seq_length) + 1);
  sample_.begins.reserve(static_cast<size_t>(most_parts));
}

double WindowRows::epochs_done(int64_t count) {
  return static_cast<double>(count) / static_cast<double>(epoch_rows_);
}

// Finds a row: its set is returned, its parts are in parts_.
const WindowSet& WindowRows::find(int64_t row) {
  MT_CHECK(row >= 0 && row < rows_);
  const bool blends = !set_of_.empty();
  const size_t set = blends ? set_of_[static_cast<size_t>(row)] : 0;
  windows_[set].window(blends ? window_of_[static_cast<size_t>(row)] : row, parts_);
  return sets_[set];
}

RowCounts WindowRows::count(int64_t row) {
  const IndexedReader& reader = find(row).data->reader();
  RowCounts counts = counts_of(options_.seq_length, count_targets(reader, parts_, options_.masking));
  add_documents(parts_, options_.masking, counts);
  return counts;
}

RowCounts WindowRows::read(int64_t row, const RowRoom& room) {
  const IndexedReader& reader = find(row).data->reader();
  read_sample(reader, parts_, options_.masking, sample_);
  std::ranges::copy(sample_.ids, room.ids.begin());
  std::ranges::copy(sample_.targets, room.targets.begin());
  std::ranges::transform(sample_.begins, room.begins.begin(),
                         [](int64_t begin) { return static_cast<int32_t>(begin); });
  RowCounts counts =
      counts_of(std::ssize(sample_.ids),
                std::ranges::count_if(sample_.targets, [](int32_t target) { return target != kIgnoreTarget; }));
  for (size_t i = 0; i < sample_.begins.size(); ++i) {
    const bool last = i + 1 == sample_.begins.size();
    add_document((last ? counts.tokens : sample_.begins[i + 1]) - sample_.begins[i], counts);
  }
  return counts;
}

}  // namespace mixtune
