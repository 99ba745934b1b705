#include "data/plan.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <exception>
#include <limits>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/random.h"

namespace mixtune {

namespace {

constexpr size_t kOpenRows = 64;
constexpr double kMaxEpochs = 1e6;
constexpr int64_t kPlannedBytes = 8;        // for a document, at most
constexpr int64_t kSideBySide = 512 << 20;  // bytes of all plans that are made at a time

std::vector<uint32_t> counted(int64_t n) {
  std::vector<uint32_t> values(n);
  std::iota(values.begin(), values.end(), 0);
  return values;
}

// The exchanges of a Fisher-Yates shuffle: that of n exchanges places n - 1 and partner(n). Memory is slow to come for
// so many places, so it is asked for some exchanges ahead.
class Exchanges {
 public:
  Exchanges(std::vector<uint32_t>& values, uint64_t key) : values_(values.data()), key_(key), count_(values.size()) {}

  void run() {
    for (size_t n = count_; n > 1; --n) {
      if (n > kAhead + 1) __builtin_prefetch(values_ + partner(n - kAhead), 1);
      exchange(n);
    }
  }
  // Undoes run().
  void run_back() {
    for (size_t n = 2; n <= count_; ++n) {
      if (n + kAhead <= count_) __builtin_prefetch(values_ + partner(n + kAhead), 1);
      exchange(n);
    }
  }

 private:
  static constexpr size_t kAhead = 32;
  size_t partner(size_t n) const { return random_below(key_, n, n); }
  void exchange(size_t n) { std::swap(values_[n - 1], values_[partner(n)]); }

  uint32_t* values_;
  uint64_t key_;
  size_t count_;
};

// The rows that documents are being packed into.
class OpenRows {
 public:
  explicit OpenRows(int64_t capacity) : capacity_(capacity) { keys_.fill(kNone); }

  // Where a document of `length` goes: into the first of the fullest rows that have room for it; else into one that is
  // opened behind all, or in the place of the first of the fullest.
  struct FieldPlace {
    size_t slot;
    bool opens, closes;
  };
  FieldPlace put(int64_t length) {
    MT_CHECK(length <= capacity_);
    if (const int64_t best = fullest(length); best != kNone) {
      keys_[slot_of(best)] -= length * kRows;
      return {slot_of(best), false, false};
    }
    const bool closes = open_ == kOpenRows;
    const size_t slot = closes ? slot_of(fullest(0)) : open_++;
    keys_[slot] = (capacity_ - length) * kRows + static_cast<int64_t>(slot);
    return {slot, true, closes};
  }
  size_t size() const { return open_; }

 private:
  static constexpr int64_t kNone = std::numeric_limits<int64_t>::max(), kRows = kOpenRows;
  static size_t slot_of(int64_t key) { return static_cast<size_t>(key % kRows); }

  // The least key with enough room. It looks at all slots, without a branch: that is a few vector instructions.
  int64_t fullest(int64_t length) const {
    int64_t best = kNone;
    const int64_t enough = length * kRows;
#pragma omp simd reduction(min : best)
    for (size_t slot = 0; slot < kOpenRows; ++slot) {
      const int64_t key = keys_[slot] >= enough ? keys_[slot] : kNone;
      best = key < best ? key : best;
    }
    return best;
  }

  int64_t capacity_;
  size_t open_ = 0;
  std::array<int64_t, kOpenRows> keys_;  // room * kRows + slot; kNone where none is open
};

// Takes documents in their order and writes each row's, once it is full, to the front of the same list: those it writes
// over have been read.
class Packer {
 public:
  Packer(EpochPlan& plan, int64_t capacity) : plan_(plan), open_(capacity) {
    plan.is_last.resize(plan.documents.size());
    plan.row_begins.reserve(plan.documents.size());  // what is not used is not resident
  }

  void add(uint32_t document, int64_t length) {
    const OpenRows::FieldPlace place = open_.put(length);
    Row& row = rows_[place.slot];
    if (place.closes) close(row);
    if (place.opens) {
      row.number = plan_.row_begins.size();
      plan_.row_begins.push_back(0);
    }
    row.documents.push_back(document);
  }
  void finish() {
    for (size_t slot = 0; slot < open_.size(); ++slot) close(rows_[slot]);
  }

 private:
  struct Row {
    size_t number = 0;
    std::vector<uint32_t> documents;
  };

  void close(Row& row) {
    plan_.row_begins[row.number] = static_cast<uint32_t>(written_);
    std::ranges::copy(row.documents, plan_.documents.begin() + static_cast<int64_t>(written_));
    written_ += row.documents.size();
    plan_.is_last[written_ - 1] = true;
    row.documents.clear();
  }

  EpochPlan& plan_;
  OpenRows open_;
  std::array<Row, kOpenRows> rows_;
  size_t written_ = 0;
};

// Fetches lengths some at a time: they are all over the place, and come faster together.
void pack(const Documents& documents, EpochPlan& plan, int64_t capacity) {
  constexpr size_t kFetched = 256;
  std::array<int64_t, kFetched> lengths;
  std::array<uint32_t, kFetched> numbers;
  Packer packer(plan, capacity);
  for (size_t begin = 0; begin < plan.documents.size(); begin += kFetched) {
    const size_t count = std::min(kFetched, plan.documents.size() - begin);
    std::copy_n(plan.documents.begin() + static_cast<int64_t>(begin), count, numbers.begin());
    for (size_t i = 0; i < count; ++i) lengths[i] = documents.length(numbers[i]);
    for (size_t i = 0; i < count; ++i) packer.add(numbers[i], lengths[i]);
  }
  packer.finish();
}

}  // namespace

std::span<const uint32_t> EpochPlan::row(int64_t r) const {
  if (row_begins.empty()) return {documents.data() + r, 1};
  const size_t begin = row_begins[r];
  const auto end = std::find(is_last.begin() + static_cast<int64_t>(begin), is_last.end(), true);
  return {documents.data() + begin, static_cast<size_t>(end - is_last.begin()) + 1 - begin};
}

EpochPlan plan_epoch(const Documents& documents, const PlanOptions& options, int64_t epoch) {
  const uint64_t seed = random_bits(options.seed, static_cast<uint64_t>(epoch));
  const bool blends = !options.blend.empty();
  EpochPlan plan;
  plan.documents =
      blends ? blend_order(options.blend, options.shuffle, random_key(seed, "blend")) : counted(documents.size());
  MT_CHECK(static_cast<int64_t>(plan.documents.size()) == documents.size());
  if (options.shuffle && !blends) Exchanges(plan.documents, random_key(seed, "documents")).run();
  if (options.packing) pack(documents, plan, options.max_seq_length);
  if (blends) return plan;
  // A shuffled list of all rows has at r the place that row r goes to: the exchanges backwards bring it there.
  if (options.shuffle)
    Exchanges(options.packing ? plan.row_begins : plan.documents, random_key(seed, "rows")).run_back();
  return plan;
}

RowSequence::RowSequence(const Documents& documents, const PlanOptions& options)
    : documents_(documents), options_(options) {
  MT_CHECK(documents.size() > 0 && options.epochs >= 0);
  if (documents.size() > std::numeric_limits<uint32_t>::max())
    throw UserError("train_file", fmt::format("{} documents are more than 2^32", documents.size()), "split the data");
  if (std::isinf(options.epochs)) return;
  if (options.epochs > kMaxEpochs)
    throw UserError("num_train_epochs", fmt::format("{} is more than {}", options.epochs, kMaxEpochs), "set max_steps");
  const auto whole = static_cast<int64_t>(options.epochs);
  const double fraction = options.epochs - static_cast<double>(whole);
  const std::vector<int64_t> rows = count_rows(whole + (fraction > 0));
  for (int64_t epoch = 0; epoch < whole; ++epoch) epoch_begin_.push_back(epoch_begin_.back() + rows[epoch]);
  rows_ = epoch_begin_[whole];
  // The slack is for decimals such as 1.1, whose fraction in binary is a little more than 0.1.
  constexpr double kSlack = 1e-9;
  if (fraction > 0)
    rows_ += static_cast<int64_t>(std::ceil(fraction * static_cast<double>(rows[whole]) * (1 - kSlack)));
}

// Plans epochs side by side, as far as that takes little memory. Backwards: the first is wanted next, and kept.
std::vector<int64_t> RowSequence::count_rows(int64_t epochs) {
  std::vector<int64_t> rows(epochs, documents_.size());
  if (!options_.packing || epochs == 0) return rows;
  if (!options_.shuffle) epochs = 1;
  const int64_t at_once = std::clamp<int64_t>(kSideBySide / (kPlannedBytes * documents_.size()), 1,
                                              std::min<int64_t>(epochs, omp_get_max_threads()));
  std::exception_ptr error;
#pragma omp parallel for schedule(dynamic) num_threads(at_once)
  for (int64_t i = 0; i < epochs; ++i) {
    const int64_t epoch = epochs - 1 - i;
    try {
      EpochPlan plan = plan_epoch(documents_, options_, epoch);
      rows[epoch] = plan.rows();
      if (epoch == 0) plan_ = std::move(plan);
    } catch (...) {
#pragma omp critical
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
  if (!options_.shuffle) std::ranges::fill(rows, rows[0]);
  planned_epoch_ = 0;
  return rows;
}

std::span<const uint32_t> RowSequence::row(int64_t index) {
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
  plan_ = {};  // two at once would be twice the memory
  plan_ = plan_epoch(documents_, options_, epoch);
  planned_epoch_ = epoch;
}

}  // namespace mixtune
