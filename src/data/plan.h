// The plan of batches: which documents stand in which row, epoch after epoch. It depends only on the documents'
// lengths, the seed and the epoch, not on how rows are spread over micro-batches or ranks.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "data/blend_order.h"
#include "data/documents.h"

namespace mixtune {

struct PlanOptions {
  int64_t max_seq_length = 0;  // of a packed row; no document is longer
  bool packing = false;        // off: one document a row
  bool shuffle = false;
  uint64_t seed = 0;
  double epochs = std::numeric_limits<double>::infinity();  // where the rows end; may be fractional
  std::vector<BlendPart> blend = {};                        // empty: each document once an epoch
};

// The rows of one epoch. Takes 4 bytes for a document and 4 more for a packed row.
struct EpochPlan {
  std::vector<uint32_t> documents;   // those of a row one after the other; without packing, row r is documents[r]
  std::vector<uint32_t> row_begins;  // where packed row r begins in `documents`
  std::vector<bool> is_last;         // whether each of `documents` is the last of its packed row

  int64_t rows() const { return static_cast<int64_t>(row_begins.empty() ? documents.size() : row_begins.size()); }
  std::span<const uint32_t> row(int64_t r) const;
};

// Shuffles the documents, packs each into the fullest of at most 64 open rows that has room, shuffles the rows. Needs
// no more memory than what it returns. For a blend, blend_order draws the documents instead, and the rows stay in the
// order in which they are opened.
EpochPlan plan_epoch(const Documents& documents, const PlanOptions& options, int64_t epoch);

// The rows of all epochs, one after the other.
class RowSequence {
 public:
  static constexpr int64_t kEndless = std::numeric_limits<int64_t>::max();

  // `documents` outlives the sequence, is not empty, and is read by several threads at once. Throws UserError for 2^32
  // documents or more.
  RowSequence(const Documents& documents, const PlanOptions& options);

  // ceil(fraction * rows of the last epoch) + the rows of the epochs before it; kEndless where epochs is infinite.
  int64_t rows() const { return rows_; }

  // The documents of a row, in [0, rows()); valid until the next call. Plans an epoch when the row is not of the one
  // planned last.
  std::span<const uint32_t> row(int64_t index);

  // The epochs that are done when the first `count` rows are.
  double epochs_done(int64_t count);

 private:
  std::vector<int64_t> count_rows(int64_t epochs);  // of each of the first epochs
  int64_t epoch_of(int64_t row);
  void count_next_epoch();
  int64_t epoch_rows(int64_t epoch);
  void enter(int64_t epoch);

  const Documents& documents_;
  PlanOptions options_;
  std::vector<int64_t> epoch_begin_ = {0};  // first row of each epoch whose predecessors are counted
  EpochPlan plan_;
  int64_t planned_epoch_ = -1;
  int64_t rows_ = kEndless;
};

}  // namespace mixtune
