// Loader: the batches of a run, by the number of the step.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "data/batch_builder.h"
#include "data/documents.h"
#include "data/plan.h"
#include "data/row_source.h"

namespace mixtune {

// What one optimizer step trains on. Counts are those of all ranks.
struct Step {
  std::span<const Batch> micro_batches;  // this rank's; valid until the next load
  int64_t live_tokens = 0;
  int64_t target_tokens = 0;
  double target_weight = 0;  // of all targets: summed by document, then by row, in order; unweighted, their number
  int64_t documents = 0;
  double squared_lengths = 0;  // of the documents, added up
  double epoch = 0;            // epochs done after this step
};

// Which share of every step is this rank's.
struct Share {
  int rank = 0, ranks = 1;
};

// Step g takes rows [g * B, (g + 1) * B) of their source, B = rows_per_micro_batch * ranks * micro_batches, or what is
// left of them at the end. Accumulation step j takes the j-th rows_per_micro_batch * ranks of these, rank r the r-th
// rows_per_micro_batch of those, and reads no other tokens (of weighted data it reads all weights of the step): so
// which documents are in an accumulation step does not depend on the ranks, as long as rows_per_micro_batch * ranks is
// the same. All ranks have as many micro-batches; at the end of the data one may be without a row (one dead tail of
// kRowAlignment tokens). A micro-batch is its rows' documents one after the other.
class Loader {
 public:
  // Batches are kPinned for a GPU. Throws UserError for a micro-batch of 2^31 tokens or more.
  Loader(std::unique_ptr<RowSource> rows, int64_t rows_per_micro_batch, int64_t micro_batches,
         HostMemory memory = HostMemory::kPageable, Share share = {});
  // Of PackedRows: `documents` outlives the loader and is not empty.
  Loader(const Documents& documents, const PlanOptions& options, int64_t rows_per_micro_batch, int64_t micro_batches,
         HostMemory memory = HostMemory::kPageable, Share share = {});

  // In the epochs of the options; where they are infinite, more than a run can take.
  int64_t steps() const { return steps_; }

  // Any step in [0, steps()), in any order. Allocates nothing but an epoch's plan.
  const Step& load(int64_t step);

  // The largest T of any micro-batch, and the most documents in one.
  int64_t max_batch_tokens() const { return room_.tokens; }
  int64_t max_batch_documents() const { return room_.documents; }
  bool weighted() const { return room_.weighted; }                          // batches have weights
  int64_t max_micro_batches() const { return builder_.value().batches(); }  // of a step

 private:
  struct Rows {
    int64_t begin, end;
  };
  Rows rows_of(Rows accumulation_step, int rank) const;
  void read(Rows rows);                 // adds them to the batch and to step_
  int64_t count_other_rows(Rows rows);  // adds them to step_; returns their tokens
  void add(const RowCounts& counts);    // to step_

  std::unique_ptr<RowSource> source_;
  Share share_;
  int64_t rows_per_micro_batch_;
  int64_t rows_per_accumulation_;  // rows_per_micro_batch of each rank
  int64_t rows_per_step_;
  int64_t steps_;
  BatchRoom room_;
  std::optional<BatchBuilder> builder_;
  std::vector<Batch> batches_;
  Step step_;
};

}  // namespace mixtune
