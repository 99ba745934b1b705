#include "checkpoint/added_rows.h"

#include <algorithm>
#include <vector>

#include "checkpoint/convert.h"
#include "checkpoint/counted_part.h"
#include "checkpoint/read_in_turn.h"
#include "checkpoint/upload.h"

namespace mixtune {

namespace {

// Adds to sums[column] the values of `rows` in that column, one after the other.
void add_rows(const Tensor& rows, std::vector<double>& sums) {
  const float* values = rows.as<float>();
  const int64_t count = rows.shape[0], columns = rows.shape[1];
#pragma omp parallel for
  for (int64_t column = 0; column < columns; ++column)
    for (int64_t row = 0; row < count; ++row) sums[column] += static_cast<double>(values[row * columns + column]);
}

// Stretches of whole rows.
std::vector<FileStretch> stretches_of_rows(const StoredValues& from, int64_t rows, int64_t columns, int64_t most) {
  std::vector<FileStretch> stretches;
  for (int64_t row = 0; row < rows; row += most)
    stretches.push_back(from.stretch(row * columns, std::min(most, rows - row) * columns));
  return stretches;
}

std::vector<float> mean_of_rows(const HfFolder& folder, const HfBlock& slice) {
  const int64_t rows = slice.stored_shape()[0], columns = slice.stored_elements() / rows;
  const StoredValues from = folder.stored(slice);
  const int64_t most = std::max<int64_t>(1, from.at_once() / columns);
  std::vector<float> values;
  std::vector<std::byte> buffer;
  std::vector<double> sums(static_cast<size_t>(columns));
  read_in_turn(stretches_of_rows(from, rows, columns, most), [&](size_t i, std::span<const std::byte> bytes) {
    const int64_t row = static_cast<int64_t>(i) * most, count = std::min(most, rows - row);
    values.resize(count * columns);
    const Tensor some = host_tensor(values.data(), {count, columns});
    if (!decode(from.values(row * columns, count * columns, bytes, buffer), from.dtype, some))
      throw_not_finite(*from.file, slice.name);
    add_rows(some, sums);
  });
  std::vector<float> mean(sums.size());
  std::ranges::transform(sums, mean.begin(),
                         [&](double sum) { return static_cast<float>(sum / static_cast<double>(rows)); });
  return mean;
}

// Fills `to`, elements of rows that are all `row`, from element `first` on, counted from the start of a row.
void fill_with_row(Ctx& ctx, const std::vector<float>& row, int64_t first, const Tensor& to) {
  const auto columns = static_cast<int64_t>(row.size());
  for (int64_t done = 0; done < to.elements();) {
    const int64_t column = (first + done) % columns, count = std::min(columns - column, to.elements() - done);
    upload(ctx, std::as_bytes(std::span(row).subspan(column, count)), DType::kF32, to.slice(done, count));
    done += count;
  }
}

}  // namespace

uint64_t fill_added_rows(Ctx& ctx, const HfFolder& folder, State& state) {
  uint64_t bytes = 0;
  for (int param = 0; param < state.size(); ++param)
    for (const HfBlock& slice : state.spec(param).blocks) {
      const CountedPart part = added_part(state, param, slice);
      if (part.to.elements() == 0) continue;
      MT_CHECK(slice.box == Box(slice.shape()));
      const std::vector<float> mean = mean_of_rows(folder, slice);
      fill_with_row(ctx, mean, part.first, part.to);
      wait(ctx);
      const FileStretch read = folder.stored(slice).stretch(0, slice.stored_elements());
      bytes += read.end - read.begin;
    }
  if (bytes > 0) folder.check_unchanged();
  return bytes;
}

}  // namespace mixtune
