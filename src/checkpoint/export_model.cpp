#include "checkpoint/export_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "checkpoint/convert.h"
#include "checkpoint/new_model_folder.h"
#include "checkpoint/read_in_turn.h"
#include "checkpoint/state_index.h"

namespace mixtune {

namespace {

// Neighbouring elements of a file, as many as are read at once, and the tensor that they become a part of.
struct ExportPart {
  StoredValues from;
  int64_t place, count;  // in `from`
  size_t file, entry;
  int64_t first;  // in the tensor
};

struct ExportPlan {
  std::vector<ExportPart> parts;
  std::vector<FileStretch> stretches;  // of each part

  // `whole` is the first elements of `from`, as many as it says.
  void add(const ExportPart& whole) {
    for (int64_t done = 0; done < whole.count; done += whole.from.at_once()) {
      ExportPart& part = parts.emplace_back(whole);
      part.place = done;
      part.count = std::min(whole.from.at_once(), whole.count - done);
      part.first += done;
      stretches.push_back(part.from.stretch(part.place, part.count));
    }
  }
};

// The parts of all tensors, in the order of the new files.
ExportPlan make_plan(const std::vector<std::vector<TensorEntry>>& files, const HfFolder& source,
                     const std::optional<StateIndex>& state, ExportReport& report) {
  ExportPlan plan;
  for (size_t f = 0; f < files.size(); ++f)
    for (size_t e = 0; e < files[f].size(); ++e) {
      const TensorEntry& entry = files[f][e];
      const int64_t n = entry.shape.elements();
      const StoredValues stored = source.stored({.name = entry.name, .box = Box(entry.shape)});
      if (stored.dtype == entry.dtype || !state || !state->is_finer(entry.name)) {
        plan.add({.from = stored, .place = 0, .count = n, .file = f, .entry = e, .first = 0});
        continue;
      }
      ++report.from_state;
      for (const StateRun& run : state->runs({entry.name, StateKind::kWeight}, {Box(entry.shape), 0, n}))
        plan.add({.from = {run.file, run.begin, run.dtype},
                  .place = 0,
                  .count = run.count,
                  .file = f,
                  .entry = e,
                  .first = run.to});
    }
  return plan;
}

// Converts values of files to those of another type.
class FileConverter {
 public:
  explicit FileConverter(WeightEdit* edit) : edit_(edit) {}

  // The bytes of `to`, valid until the next call. Throws UserError where a value is not finite, or too large for `to`.
  std::span<const std::byte> operator()(std::span<const std::byte> stretch, const ExportPart& part,
                                        const TensorEntry& to) {
    const StoredValues& from = part.from;
    const std::span<const std::byte> bytes = from.values(part.place, part.count, stretch, values_);
    if (edit_ != nullptr && edit_->edits(to.name)) {
      exact_.resize(part.count);
      if (!decode(bytes, from.dtype, host_tensor(exact_.data(), {part.count}))) throw_not_finite(*from.file, to.name);
      return edit_->edited(to, part.first, exact_);
    }
    if (from.dtype == to.dtype) {
      if (!all_finite(bytes, from.dtype)) throw_not_finite(*from.file, to.name);
      return bytes;
    }
    wide_.resize(part.count);
    if (!decode(bytes, from.dtype, host_tensor(wide_.data(), {part.count}))) throw_not_finite(*from.file, to.name);
    if (to.dtype == DType::kF32) return std::as_bytes(std::span(wide_));
    narrow_.resize(wide_.size() * dtype_size(to.dtype));
    if (!narrow(wide_, to.dtype, narrow_))
      throw UserError(printable_path(from.file->path()),
                      fmt::format("tensor '{}' holds a value too large for {}", to.name, dtype_name(to.dtype)),
                      to.dtype == DType::kF16 ? "give --dtype bf16 or fp32" : "give --dtype fp32");
    return narrow_;
  }

 private:
  WeightEdit* edit_;
  std::vector<double> exact_;
  std::vector<float> wide_;
  std::vector<std::byte> values_, narrow_;
};

void write_tensors(NewModelFolder& folder, const ExportPlan& plan, const BytesDone& progress, WeightEdit* edit) {
  FileConverter converted(edit);
  const auto write = [&](size_t i, std::span<const std::byte> bytes) {
    const ExportPart& part = plan.parts[i];
    folder.write(part.file, part.entry, part.first, converted(bytes, part, folder.files()[part.file][part.entry]));
  };
  read_in_turn(plan.stretches, write, progress);
}

}  // namespace

ExportReport export_model(const State& shape, const SaveOptions& options, const BytesDone& progress, WeightEdit* edit) {
  const HfFolder& source = *options.source;
  NewModelFolder folder(shape, options);
  ExportReport report{.tensors = folder.tensors(), .files = folder.files().size(), .bytes = folder.bytes()};
  std::optional<StateIndex> state;
  if (options.dtype && edit == nullptr && StateIndex::is_in(source.path()))
    state.emplace(source.path(), "use another checkpoint");
  write_tensors(folder, make_plan(folder.files(), source, state, report), progress, edit);
  folder.commit();
  return report;
}

}  // namespace mixtune
