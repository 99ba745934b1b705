// BatchBuilder: makes batches of rows of documents.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "data/batch.h"
#include "data/row_source.h"
#include "tensor/memory.h"

namespace mixtune {

// The most that a batch may hold.
struct BatchRoom {
  int64_t tokens, documents;
  bool weighted = false;                 // batches have weights
  bool cached = false;                   // they are made of sequences' tokens alone: add_to_sequence
  int64_t row_multiple = kRowAlignment;  // of which T is one; 1 for the CPU's inference, which needs no dead tail

  int64_t rows(int64_t live) const {
    return (std::max<int64_t>(live, 1) + row_multiple - 1) / row_multiple * row_multiple;
  }
  size_t bytes() const;  // of the memory that a batch is in
};

// begin, then rows (each is read to room() and added, or is a document that is given), then finish. They stand in the
// batch in this order. Only the constructor allocates.
class BatchBuilder {
 public:
  // Makes room for `batches` of them, which are alive at once. kPinned for a GPU. Throws Error where memory lacks.
  explicit BatchBuilder(const BatchRoom& room, HostMemory memory = HostMemory::kPageable, int64_t batches = 1);

  int64_t batches() const { return static_cast<int64_t>(buffers_.size()); }

  // The next batch is in place i of batches(); the one that was there is no more.
  void begin(int64_t i = 0);

  // All the room that is left for the next row.
  RowRoom room() const;
  // The row that was read there.
  void add(const RowCounts& counts);
  // A row of one document, with labels and weights as Documents has them, not shifted. No labels: nothing is trained;
  // no weights: all are 1.
  void add_document(std::span<const int32_t> ids, std::span<const int32_t> labels, std::span<const float> weights = {});
  // A row of tokens that go on with a sequence of the model's cache, which has those before `position`.
  void add_to_sequence(std::span<const int32_t> ids, int64_t sequence, int64_t position);

  // The batch, in the builder's memory. tokens_elsewhere: live tokens that other ranks have of its accumulation step.
  Batch finish(int64_t tokens_elsewhere = 0);

 private:
  struct Buffers {
    int32_t *ids, *targets, *positions, *target_rows, *doc_offsets;
    int32_t *sorted_ids, *id_begins, *id_rows;
    float* weights;      // null: all are 1
    int32_t* sequences;  // null: none is cached
  };
  IdIndex index_ids();

  BatchRoom room_;
  std::unique_ptr<Arena> arena_;
  std::vector<Buffers> buffers_;  // of each batch
  std::vector<uint64_t> sorted_;  // (id, row) of the batch that is finished last
  // Of the batch that is being built.
  Buffers now_ = {};
  int64_t live_ = 0, targets_ = 0, documents_ = 0;
  bool continues_ = false;
};

}  // namespace mixtune
