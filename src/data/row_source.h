// RowSource: the rows that the batches of a run are made of.
#pragma once

#include <cstdint>
#include <limits>
#include <span>

namespace mixtune {

struct RowCounts {
  int64_t tokens = 0, targets = 0, documents = 0;
  double weight = 0;  // of all targets, added up by document: their number, where the source is not weighted
};

// Where a row is read to: each span has room for the longest row of the source.
struct RowRoom {
  std::span<int32_t> ids;
  std::span<int32_t> targets;  // what each token is trained to predict, the token after it, or kIgnoreTarget
  std::span<float> weights;    // of each target, where the source is weighted; else empty
  std::span<int32_t> begins;   // of the row's documents, which do not see each other: ascending from 0
};

// Which rows these are depends on the data and the settings of the run alone, not on ranks or micro-batches: step g of
// a run takes rows [gB, (g + 1)B) for a global batch of B rows.
class RowSource {
 public:
  static constexpr int64_t kEndless = std::numeric_limits<int64_t>::max();

  virtual ~RowSource() = default;

  virtual int64_t rows() const = 0;  // kEndless: there is no end
  virtual int64_t max_tokens() const = 0;
  virtual int64_t max_documents() const = 0;
  virtual bool weighted() const = 0;  // targets have weights that are not 1

  // The epochs that are done when the first `count` rows are.
  virtual double epochs_done(int64_t count) = 0;

  // Of a row in [0, rows()), without its tokens being read. Neither this nor read() allocates anything but an epoch's
  // plan.
  virtual RowCounts count(int64_t row) = 0;

  // Reads it, and returns the same. Throws Error where a file cannot be read.
  virtual RowCounts read(int64_t row, const RowRoom& room) = 0;
};

}  // namespace mixtune
