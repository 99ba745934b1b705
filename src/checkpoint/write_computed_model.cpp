#include "checkpoint/write_computed_model.h"

#include <algorithm>
#include <exception>

#include "checkpoint/convert.h"
#include "checkpoint/new_model_folder.h"
#include "checkpoint/write_behind.h"

namespace mixtune {

void write_computed_model(Ctx& ctx, const State& shape, const SaveOptions& options, const ComputeValues& values,
                          const BytesDone& progress) {
  constexpr size_t kChunks = 4;  // the disk may pause for as many
  NewModelFolder folder(shape, options);
  WriteBehind behind(ctx, kChunks * WriteBehind::kChunkBytes);
  const WriteBehind::Queue queue = behind.new_queue();
  uint64_t done = 0;
  for (size_t f = 0; f < folder.files().size(); ++f)
    for (size_t e = 0; e < folder.files()[f].size(); ++e) {
      const TensorEntry& entry = folder.files()[f][e];
      const int64_t n = entry.shape.elements();
      for (int64_t first = 0, count; first < n; first += count) {
        count = std::min(n - first, WriteBehind::kChunkBytes / static_cast<int64_t>(dtype_size(entry.dtype)));
        behind.put(
            queue, entry.dtype, count, [&](const Tensor& to) { values(entry, first, to); },
            [&folder, f, e, first](const Tensor& chunk) { folder.write(f, e, first, bytes_of(chunk)); });
        done += count * dtype_size(entry.dtype);
        if (progress) progress(done, folder.bytes());
      }
    }
  behind.wait();
  if (const std::exception_ptr failure = behind.take_failure()) std::rethrow_exception(failure);
  folder.commit();
}

}  // namespace mixtune
