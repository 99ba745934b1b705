#include "data/batch_builder.h"

#include <algorithm>

#include "data/label.h"

namespace mixtune {

namespace {

size_t room_of(int64_t numbers) {
  static_assert(sizeof(float) == sizeof(int32_t));
  return align_up(static_cast<size_t>(numbers) * sizeof(int32_t));
}

}  // namespace

size_t BatchRoom::bytes() const {
  const int64_t rows = this->rows(tokens);
  return static_cast<size_t>(6 + weighted + cached) * room_of(rows) + room_of(rows + 1) + room_of(documents + 1);
}

BatchBuilder::BatchBuilder(const BatchRoom& room, HostMemory memory, int64_t batches) : room_(room) {
  MT_CHECK(room.tokens > 0 && batches > 0);
  arena_ = std::make_unique<Arena>("batches", Device{}, static_cast<size_t>(batches) * room.bytes(), memory);
  const auto allocate = [&](const char* name, int64_t n) {
    return arena_->allocate(name, {n}, DType::kI32).as<int32_t>();
  };
  const int64_t rows = room.rows(room.tokens);
  for (int64_t i = 0; i < batches; ++i)
    buffers_.push_back(
        {.ids = allocate("ids", rows),
         .targets = allocate("targets", rows),
         .positions = allocate("positions", rows),
         .target_rows = allocate("target rows", rows),
         .doc_offsets = allocate("document offsets", room.documents + 1),
         .sorted_ids = allocate("sorted ids", rows),
         .id_begins = allocate("begins by id", rows + 1),
         .id_rows = allocate("rows by id", rows),
         .weights = room.weighted ? arena_->allocate("weights", {rows}, DType::kF32).as<float>() : nullptr,
         .sequences = room.cached ? allocate("sequences", rows) : nullptr});
  sorted_.resize(static_cast<size_t>(room.tokens));
}

void BatchBuilder::begin(int64_t i) {
  MT_CHECK(i >= 0 && i < batches());
  now_ = buffers_[static_cast<size_t>(i)];
  live_ = targets_ = documents_ = 0;
  continues_ = false;
}

// Targets and weights are listed where they are read: no row's place in the list is past the row.
RowRoom BatchBuilder::room() const {
  MT_CHECK(now_.ids);
  const auto tokens = static_cast<size_t>(room_.tokens - live_);
  return {.ids = {now_.ids + live_, tokens},
          .targets = {now_.targets + live_, tokens},
          .weights = {now_.weights ? now_.weights + live_ : nullptr, now_.weights ? tokens : 0},
          .begins = {now_.doc_offsets + documents_, static_cast<size_t>(room_.documents - documents_)}};
}

void BatchBuilder::add(const RowCounts& counts) {
  const Buffers& b = now_;
  const int64_t first = live_, end = first + counts.tokens;
  MT_CHECK(end <= room_.tokens && documents_ + counts.documents <= room_.documents);
  const std::span<int32_t> begins(b.doc_offsets + documents_, static_cast<size_t>(counts.documents));
  for (int32_t& begin : begins) begin += static_cast<int32_t>(first);
  int64_t targets = targets_;
  size_t next = 0;
  for (int64_t row = first; row < end; ++row) {
    if (next < begins.size() && begins[next] == row) ++next;
    b.positions[row] = static_cast<int32_t>(row) - begins[next - 1];
    const int32_t target = b.targets[row];
    if (target == kIgnoreTarget) continue;
    b.target_rows[targets] = static_cast<int32_t>(row);
    if (b.weights) b.weights[targets] = b.weights[row];
    b.targets[targets++] = target;
  }
  live_ = end;
  targets_ = targets;
  documents_ += counts.documents;
}

void BatchBuilder::add_document(std::span<const int32_t> ids, std::span<const int32_t> labels,
                                std::span<const float> weights) {
  const RowRoom to = room();
  MT_CHECK(!ids.empty() && ids.size() <= to.ids.size() && !to.begins.empty());
  MT_CHECK(labels.empty() || labels.size() == ids.size());
  MT_CHECK(weights.empty() || (weights.size() == ids.size() && room_.weighted));
  const std::span<int32_t> targets = to.targets.first(ids.size());
  const std::span<float> target_weights = to.weights.first(room_.weighted ? ids.size() : 0);
  std::ranges::copy(ids, to.ids.begin());
  std::ranges::fill(targets, kIgnoreTarget);
  std::ranges::copy(labels, targets.begin());
  std::ranges::fill(target_weights, 1.0F);
  std::ranges::copy(weights, target_weights.begin());
  shift_labels(targets, target_weights);
  to.begins[0] = 0;
  add({.tokens = static_cast<int64_t>(ids.size()), .documents = 1});
}

void BatchBuilder::add_to_sequence(std::span<const int32_t> ids, int64_t sequence, int64_t position) {
  MT_CHECK(now_.sequences);
  const int64_t first = live_;
  add_document(ids, {});
  for (int64_t row = first; row < live_; ++row) now_.positions[row] += static_cast<int32_t>(position);
  std::fill(now_.sequences + first, now_.sequences + live_, static_cast<int32_t>(sequence));
  continues_ |= position > 0;
}

Batch BatchBuilder::finish(int64_t tokens_elsewhere) {
  const Buffers& b = now_;
  b.doc_offsets[documents_] = static_cast<int32_t>(live_);
  const int64_t rows = room_.rows(live_);
  std::fill(b.ids + live_, b.ids + rows, 0);
  std::fill(b.positions + live_, b.positions + rows, 0);
  if (b.sequences) std::fill(b.sequences + live_, b.sequences + rows, 0);
  const Tensor doc_offsets = host_tensor(b.doc_offsets, {documents_ + 1});
  return {.ids = host_tensor(b.ids, {rows}),
          .positions = host_tensor(b.positions, {rows}),
          .target_rows = host_tensor(b.target_rows, {targets_}),
          .targets = host_tensor(b.targets, {targets_}),
          .weights = b.weights ? host_tensor(b.weights, {targets_}) : Tensor{},
          .doc_offsets = doc_offsets,
          .rows_by_id = index_ids(),
          .host_doc_offsets = doc_offsets,
          .sequences = b.sequences ? host_tensor(b.sequences, {rows}) : Tensor{},
          .continues = continues_,
          .live_tokens = live_,
          .step_tokens = live_ + tokens_elsewhere};
}

IdIndex BatchBuilder::index_ids() {
  const Buffers& b = now_;
  uint64_t* sorted = sorted_.data();
  for (int64_t row = 0; row < live_; ++row) sorted[row] = static_cast<uint64_t>(b.ids[row]) << 32 | row;
  std::sort(sorted, sorted + live_);
  int64_t count = 0;
  for (int64_t i = 0; i < live_; ++i) {
    const auto id = static_cast<int32_t>(sorted[i] >> 32);
    b.id_rows[i] = static_cast<int32_t>(sorted[i]);
    if (count > 0 && b.sorted_ids[count - 1] == id) continue;
    b.id_begins[count] = static_cast<int32_t>(i);
    b.sorted_ids[count++] = id;
  }
  b.id_begins[count] = static_cast<int32_t>(live_);
  return {host_tensor(b.sorted_ids, {count}), host_tensor(b.id_begins, {count + 1}), host_tensor(b.id_rows, {live_})};
}

}  // namespace mixtune
