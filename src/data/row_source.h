// RowSource: the rows of which a run's batches are made.
#pragma once

#include <cstdint>
#include <limits>
#include <span>

namespace mixtune {

struct RowCounts {
  int64_t tokens = 0, targets = 0, documents = 0;
  double weight = 0;           // of all targets, added up by document: their number, where the source is not weighted
  double squared_lengths = 0;  // of the documents, added up; exact below 2^53
};

// Where a row is read into: each span has room for the longest row of the source.
struct RowRoom {
  std::span<int32_t> ids;
  std::span<int32_t> targets;  // the token after each, which it is trained to predict, or kIgnoreTarget
  std::span<float> weights;    // of each target, where the source is weighted; else empty
  std::span<int32_t> begins;   // where the row's documents begin, which do not see each other: ascending from 0
};

// The rows depend only on the data and the settings of the run, not on ranks or micro-batches: step g of a run takes
// rows [gB, (g + 1)B) for a global batch of B rows.
class RowSource {
 public:
  static constexpr int64_t kEndless = std::numeric_limits<int64_t>::max();

  virtual ~RowSource() = default;

  virtual int64_t rows() const = 0;  // kEndless: there is no end
  virtual int64_t max_tokens() const = 0;
  virtual int64_t max_documents() const = 0;
  virtual bool weighted() const = 0;  // some target has a weight other than 1

  // The epochs that are done when the first `count` rows are.
  virtual double epochs_done(int64_t count) = 0;

  // The counts of a row in [0, rows()); its tokens are not read. Neither this nor read() allocates anything but an
  // epoch's plan.
  virtual RowCounts count(int64_t row) = 0;

  // Reads a row, and returns its counts. Throws Error where a file cannot be read.
  virtual RowCounts read(int64_t row, const RowRoom& room) = 0;
};

}  // namespace mixtune
