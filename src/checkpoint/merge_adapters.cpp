#include "checkpoint/merge_adapters.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <set>
#include <span>

#include "base/error.h"
#include "checkpoint/convert.h"
#include "checkpoint/export_model.h"
#include "state/adapter_names.h"

namespace mixtune {

namespace {

// One adapter's part of a weight.
struct DeltaTerm {
  double scale;
  int64_t rank;
  std::vector<double> a, b;  // [rank, in], [out, rank]
};

// Over some elements of a weight.
struct MergeSums {
  int64_t changed = 0;
  double error = 0, delta = 0;  // squares
  bool is_finite = true, fits = true;

  void add(const MergeSums& more) {
    changed += more.changed;
    error += more.error;
    delta += more.delta;
    is_finite = is_finite && more.is_finite;
    fits = fits && more.fits;
  }
};

// Neighbouring elements of a row, as many as a thread merges at once.
struct MergeBlock {
  static constexpr int64_t kMost = 1024;
  int64_t row, column, count;
  size_t at;  // among the values that are merged
};

std::vector<MergeBlock> blocks_of(int64_t first, int64_t count, int64_t columns) {
  std::vector<MergeBlock> blocks;
  for (int64_t done = 0; done < count;) {
    const int64_t place = first + done, column = place % columns;
    const int64_t size = std::min({columns - column, count - done, MergeBlock::kMost});
    blocks.push_back({place / columns, column, size, static_cast<size_t>(done)});
    done += size;
  }
  return blocks;
}

class AdapterMerge : public WeightEdit {
 public:
  AdapterMerge(std::vector<WeightedAdapter>& adapters, HeldBase* base, MergeReport& report)
      : adapters_(adapters), base_(base), report_(report) {
    for (const WeightedAdapter& adapter : adapters) {
      for (const AdapterPair& pair : adapter.folder.pairs()) modules_.insert(pair.module);
      for (const AdapterWhole& whole : adapter.folder.whole()) add_whole(adapter, whole);
    }
    for (const std::string& module : modules_) ++report_.merged[target_module(module, AdapterNaming::kHub)];
  }

  bool edits(const std::string& tensor) const override {
    return modules_.contains(module_of(tensor)) || (base_ != nullptr && base_->has(tensor));
  }

  std::span<const std::byte> edited(const TensorEntry& to, int64_t first, std::span<const double> stored) override {
    if (tensor_ != to.name) open(to);
    const std::span<const double> values = base_values(to.name, first, stored);
    const std::vector<double> whole = whole_values(to, first, static_cast<int64_t>(values.size()));
    bytes_.resize(values.size() * dtype_size(to.dtype));
    const std::vector<MergeBlock> blocks = blocks_of(first, static_cast<int64_t>(values.size()), to.shape[-1]);
    std::vector<MergeSums> sums(blocks.size());
#pragma omp parallel for
    for (size_t i = 0; i < blocks.size(); ++i) sums[i] = merged(blocks[i], to, values, whole);
    MergeSums all;
    for (const MergeSums& some : sums) all.add(some);
    check(to, all);
    if (terms_.empty() && whole.empty()) return bytes_;  // held, and not merged into
    report_.changed += all.changed;
    report_.elements += static_cast<int64_t>(values.size());
    report_.error += all.error;
    report_.delta += all.delta;
    return bytes_;
  }

 private:
  void add_whole(const WeightedAdapter& adapter, const AdapterWhole& whole) {
    const std::string where = printable_path(adapter.folder.path());
    if (adapter.weight != 1)
      throw UserError(where,
                      fmt::format("has {} whole, which takes the base's place and is not added {} times", whole.module,
                                  adapter.weight),
                      "give it without a weight");
    if (!whole_.emplace(whole.module, &adapter.folder).second)
      throw UserError(
          where, fmt::format("has {} whole, as {} has", whole.module, printable_path(whole_.at(whole.module)->path())),
          "merge one of them");
    modules_.insert(whole.module);
  }

  // What takes the place of a tensor's elements from `first` on; nothing: they stay.
  std::vector<double> whole_values(const TensorEntry& to, int64_t first, int64_t count) const {
    const auto found = whole_.find(module_of(to.name));
    if (found == whole_.end()) return {};
    const std::vector<float> values = found->second->read(*found->second->find_whole(found->first), first, count);
    return {values.begin(), values.end()};
  }

  void open(const TensorEntry& to) {
    tensor_ = to.name;
    terms_.clear();
    for (auto& [folder, weight] : adapters_)
      if (const AdapterPair* pair = folder.find(module_of(to.name))) {
        const AdapterFactors factors = folder.read(*pair);
        terms_.push_back({weight * pair->scaling,
                          pair->rank,
                          {factors.a.begin(), factors.a.end()},
                          {factors.b.begin(), factors.b.end()}});
      }
  }

  // What is added to: the folder's values, or what the base has of them.
  std::span<const double> base_values(const std::string& tensor, int64_t first, std::span<const double> stored) {
    if (base_ == nullptr || !base_->has(tensor)) return stored;
    const std::span<const float> held = base_->values(tensor).subspan(static_cast<size_t>(first), stored.size());
    held_.assign(held.begin(), held.end());
    return held_;
  }

  // What the adapters add to a block's elements.
  std::array<double, MergeBlock::kMost> delta_of(const MergeBlock& block, int64_t columns) const {
    std::array<double, MergeBlock::kMost> delta{};
    for (const DeltaTerm& term : terms_) {
      std::array<double, MergeBlock::kMost> product{};
      for (int64_t j = 0; j < term.rank; ++j) {
        const double b = term.b[static_cast<size_t>(block.row * term.rank + j)];
        const double* const a = term.a.data() + j * columns + block.column;
        double* const sums = product.data();
#pragma omp simd
        for (int64_t k = 0; k < block.count; ++k) sums[k] += b * a[k];
      }
      for (size_t k = 0; k < static_cast<size_t>(block.count); ++k) delta[k] += term.scale * product[k];
    }
    return delta;
  }

  // Writes a block's bytes. A weight that nothing is added to keeps its bits, be it -0.
  MergeSums merged(const MergeBlock& block, const TensorEntry& to, std::span<const double> values,
                   std::span<const double> whole) {
    std::array<double, MergeBlock::kMost> delta = delta_of(block, to.shape[-1]);
    const auto count = static_cast<size_t>(block.count), size = dtype_size(to.dtype);
    const std::span<const double> base = values.subspan(block.at, count);
    std::array<double, MergeBlock::kMost> sum, rounded;
    std::array<std::byte, MergeBlock::kMost * sizeof(float)> without;
    for (size_t k = 0; k < count; ++k) {
      const double from = whole.empty() ? base[k] : whole[block.at + k];
      sum[k] = delta[k] == 0 ? from : from + delta[k];
      delta[k] += from - base[k];
    }
    const std::span<std::byte> bytes = std::span(bytes_).subspan(block.at * size, count * size);
    MergeSums sums;
    for (size_t k = 0; k < count; ++k) sums.is_finite = sums.is_finite && std::isfinite(sum[k]);
    sums.fits = narrow(std::span<const double>(sum.data(), count), to.dtype, bytes);
    if (!sums.is_finite || !sums.fits) return sums;
    narrow(base, to.dtype, std::span(without).first(count * size));
    decode(bytes, to.dtype, host_tensor(rounded.data(), {block.count}));
    for (size_t k = 0; k < count; ++k) {
      sums.changed += std::memcmp(bytes.data() + k * size, without.data() + k * size, size) != 0;
      sums.error += (rounded[k] - sum[k]) * (rounded[k] - sum[k]);
      sums.delta += delta[k] * delta[k];
    }
    return sums;
  }

  void check(const TensorEntry& to, const MergeSums& sums) const {
    if (sums.is_finite && sums.fits) return;
    const std::string where = printable_path(adapters_.front().folder.path());
    if (!sums.is_finite)
      throw UserError(where, fmt::format("merging makes tensor '{}' NaN or infinite", to.name),
                      "the adapter is damaged, or comes from a run that went bad: use another");
    throw UserError(where, fmt::format("merging makes tensor '{}' too large for {}", to.name, dtype_name(to.dtype)),
                    to.dtype == DType::kF16 ? "give --dtype bf16 or fp32" : "give --dtype fp32");
  }

  std::vector<WeightedAdapter>& adapters_;
  HeldBase* base_;  // null: the folder's values
  MergeReport& report_;
  std::set<std::string> modules_;
  std::map<std::string, const AdapterFolder*> whole_;  // by module
  std::string tensor_;                                 // whose terms these are
  std::vector<DeltaTerm> terms_;
  std::vector<double> held_;
  std::vector<std::byte> bytes_;
};

}  // namespace

MergeReport merge_adapters(const State& shape, const SaveOptions& options, std::vector<WeightedAdapter>& adapters,
                           const BytesDone& progress, HeldBase* base) {
  MergeReport report;
  AdapterMerge merge(adapters, base, report);
  const ExportReport written = export_model(shape, options, progress, &merge);
  report.bytes = written.bytes;
  report.tensors = written.tensors;
  report.files = written.files;
  report.delta = std::sqrt(report.delta);
  report.error = std::sqrt(report.error);
  return report;
}

}  // namespace mixtune
