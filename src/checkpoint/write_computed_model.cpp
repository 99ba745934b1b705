#include "checkpoint/write_computed_model.h"

#include <algorithm>
#include <exception>
#include <optional>
#include <vector>

#include "checkpoint/convert.h"
#include "checkpoint/new_model_folder.h"
#include "checkpoint/write_behind.h"

namespace mixtune {

namespace {

// Elements of a tensor.
struct Stretch {
  size_t lane, file, entry;
  int64_t first, count;
};

// The stretches of all tensors: those of a lane's file in their order, of several lanes by turns.
class Stretches {
 public:
  Stretches(const std::vector<std::vector<TensorEntry>>& files, size_t lanes) : files_(files) {
    for (size_t lane = 0; lane < std::min(lanes, files.size()); ++lane) next_.push_back({lane, next_file_++, 0, 0, 0});
  }

  std::optional<Stretch> next() {
    if (next_.empty()) return {};
    turn_ %= next_.size();
    Stretch& of_lane = next_[turn_];
    const TensorEntry& entry = files_[of_lane.file][of_lane.entry];
    const int64_t most = WriteBehind::kChunkBytes / static_cast<int64_t>(dtype_size(entry.dtype)),
                  left = entry.shape.elements() - of_lane.first;
    of_lane.count = std::min(most, left);
    const Stretch found = of_lane;
    if (found.count < left)
      of_lane.first += found.count;
    else if (found.entry + 1 < files_[found.file].size())
      of_lane = {found.lane, found.file, found.entry + 1, 0, 0};
    else if (next_file_ < files_.size())
      of_lane = {found.lane, next_file_++, 0, 0, 0};
    else
      next_.erase(next_.begin() + static_cast<std::ptrdiff_t>(turn_));
    ++turn_;
    return found;
  }

 private:
  const std::vector<std::vector<TensorEntry>>& files_;
  std::vector<Stretch> next_;  // of each lane; their counts are not there yet
  size_t next_file_ = 0, turn_ = 0;
};

}  // namespace

void write_computed_model(Ctx& ctx, const State& shape, const SaveOptions& options, const ComputeValues& values,
                          const BytesDone& progress) {
  // A file is copied to its pages by one thread at a time, some 1.1 GB/s: less than many a disk takes.
  constexpr size_t kLanes = 4, kChunks = 2 * kLanes;
  NewModelFolder folder(shape, options);
  WriteBehind behind(ctx, kChunks * WriteBehind::kChunkBytes, kLanes, {});
  std::vector<WriteBehind::Queue> queues;
  for (size_t lane = 0; lane < kLanes; ++lane) queues.push_back(behind.new_queue());
  uint64_t done = 0;
  Stretches stretches(folder.files(), kLanes);
  while (const std::optional<Stretch> stretch = stretches.next()) {
    const TensorEntry& entry = folder.files()[stretch->file][stretch->entry];
    behind.put(
        queues[stretch->lane], entry.dtype, stretch->count,
        [&](const Tensor& to) { values(entry, stretch->first, to); },
        [&folder, at = *stretch](const Tensor& chunk) { folder.write(at.file, at.entry, at.first, bytes_of(chunk)); });
    done += stretch->count * dtype_size(entry.dtype);
    if (progress) progress(done, folder.bytes());
  }
  behind.wait();
  if (const std::exception_ptr failure = behind.take_failure()) std::rethrow_exception(failure);
  folder.commit();
}

}  // namespace mixtune
