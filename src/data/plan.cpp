#include "data/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/random.h"

namespace mixtune {

namespace {

constexpr size_t kOpenRows = 64;
constexpr double kMaxEpochs = 1e6;

std::vector<int64_t> counted(int64_t n) {
  std::vector<int64_t> values(n);
  std::iota(values.begin(), values.end(), 0);
  return values;
}

// Fisher-Yates.
void shuffle(std::vector<int64_t>& values, uint64_t key) {
  for (size_t n = values.size(); n > 1; --n) std::swap(values[n - 1], values[random_below(key, n, n)]);
}

// The row of each document of `order`, rows numbered as they are opened.
std::vector<int64_t> pack(const Documents& documents, const std::vector<int64_t>& order, int64_t capacity) {
  struct OpenRow {
    int64_t row, room;
  };
  std::vector<OpenRow> open;
  std::vector<int64_t> row_of;
  row_of.reserve(order.size());
  int64_t rows = 0;
  for (const int64_t d : order) {
    const int64_t length = documents.length(d);
    MT_CHECK(length <= capacity);
    OpenRow* best = nullptr;
    for (OpenRow& candidate : open)
      if (candidate.room >= length && (!best || candidate.room < best->room)) best = &candidate;
    if (!best && open.size() < kOpenRows) {
      best = &open.emplace_back(OpenRow{rows++, capacity});
    } else if (!best) {
      best = &*std::ranges::min_element(open, {}, &OpenRow::room);
      *best = {rows++, capacity};
    }
    best->room -= length;
    row_of.push_back(best->row);
  }
  return row_of;
}

}  // namespace

EpochPlan plan_epoch(const Documents& documents, const PlanOptions& options, int64_t epoch) {
  const uint64_t seed = random_bits(options.seed, static_cast<uint64_t>(epoch));
  std::vector<int64_t> order = counted(documents.size());
  if (options.shuffle) shuffle(order, random_key(seed, "documents"));
  const std::vector<int64_t> row_of =
      options.packing ? pack(documents, order, options.max_seq_length) : counted(documents.size());
  const int64_t rows = row_of.empty() ? 0 : std::ranges::max(row_of) + 1;
  std::vector<int64_t> place_of = counted(rows);
  if (options.shuffle) shuffle(place_of, random_key(seed, "rows"));

  // A counting sort of the documents by the place of their row.
  EpochPlan plan{std::vector<int64_t>(order.size()), std::vector<int64_t>(rows + 1)};
  for (const int64_t row : row_of) ++plan.row_offsets[place_of[row] + 1];
  std::partial_sum(plan.row_offsets.begin(), plan.row_offsets.end(), plan.row_offsets.begin());
  std::vector<int64_t> next(plan.row_offsets.begin(), plan.row_offsets.end() - 1);
  for (size_t i = 0; i < order.size(); ++i) plan.documents[next[place_of[row_of[i]]]++] = order[i];
  return plan;
}

RowSequence::RowSequence(const Documents& documents, const PlanOptions& options)
    : documents_(documents), options_(options) {
  MT_CHECK(documents.size() > 0 && options.epochs >= 0);
  if (std::isinf(options.epochs)) return;
  if (options.epochs > kMaxEpochs)
    throw UserError("num_train_epochs", fmt::format("{} is more than {}", options.epochs, kMaxEpochs), "set max_steps");
  const auto whole = static_cast<int64_t>(options.epochs);
  const double fraction = options.epochs - static_cast<double>(whole);
  while (static_cast<int64_t>(epoch_begin_.size()) <= whole) count_next_epoch();
  rows_ = epoch_begin_[whole];
  // The slack is for decimals such as 1.1, whose fraction in binary is a little more than 0.1.
  constexpr double kSlack = 1e-9;
  if (fraction > 0)
    rows_ += static_cast<int64_t>(std::ceil(fraction * static_cast<double>(epoch_rows(whole)) * (1 - kSlack)));
}

std::span<const int64_t> RowSequence::row(int64_t index) {
  MT_CHECK(index >= 0 && index < rows_);
  const int64_t epoch = epoch_of(index);
  enter(epoch);
  return plan_.row(index - epoch_begin_[epoch]);
}

double RowSequence::epochs_done(int64_t count) {
  if (count == 0) return 0;
  const int64_t epoch = epoch_of(count - 1);
  const auto into_it = static_cast<double>(count - epoch_begin_[epoch]);
  return static_cast<double>(epoch) + into_it / static_cast<double>(epoch_rows(epoch));
}

int64_t RowSequence::epoch_of(int64_t row) {
  while (epoch_begin_.back() <= row) count_next_epoch();
  return std::ranges::upper_bound(epoch_begin_, row) - epoch_begin_.begin() - 1;
}

void RowSequence::count_next_epoch() {
  epoch_begin_.push_back(epoch_begin_.back() + epoch_rows(static_cast<int64_t>(epoch_begin_.size()) - 1));
}

int64_t RowSequence::epoch_rows(int64_t epoch) {
  if (!options_.packing) return documents_.size();
  enter(epoch);
  return plan_.rows();
}

void RowSequence::enter(int64_t epoch) {
  const bool same_rows = planned_epoch_ >= 0 && (planned_epoch_ == epoch || !options_.shuffle);
  if (same_rows) return;
  plan_ = plan_epoch(documents_, options_, epoch);
  planned_epoch_ = epoch;
}

}  // namespace mixtune
