#include "checkpoint/adapter_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/contained.h"
#include "base/error.h"
#include "checkpoint/convert.h"

namespace mixtune {

namespace {

template <class T>
void gather(const std::string& bytes, const FactorPlace& place, int64_t columns, std::vector<float>& to) {
  for (size_t k = 0; k < to.size(); ++k) {
    const auto i = static_cast<int64_t>(k) / columns, j = static_cast<int64_t>(k) % columns;
    T value;
    std::memcpy(&value, bytes.data() + (place.first + i * place.row_step + j * place.column_step) * sizeof(T),
                sizeof(T));
    if constexpr (std::is_same_v<T, float>)
      to[k] = value;
    else
      to[k] = to_float(value);
  }
}

// The half of a pair's ranks from `first` on.
AdapterPair half_of(AdapterPair pair, int64_t first) {
  pair.a.first += first * pair.a.row_step;
  pair.b.first += first * pair.b.column_step;
  pair.rank /= 2;
  return pair;
}

}  // namespace

BaseShapes base_shapes(const State& shape) {
  BaseShapes shapes;
  for (int param = 0; param < shape.size(); ++param)
    for (const auto* blocks : {&shape.spec(param).blocks, &shape.spec(param).elsewhere})
      for (const HfBlock& block : *blocks) shapes.emplace(block.name, block.shape());
  return shapes;
}

SafetensorsFile open_adapter_weights(const std::string& folder) {
  std::error_code error;
  if (!std::filesystem::exists(folder + "/" + kAdapterWeightsFile, error)) {
    const bool has_bin = std::filesystem::exists(folder + "/adapter_model.bin", error);
    throw UserError(
        printable_path(folder),
        has_bin ? "has its weights in adapter_model.bin, PyTorch's format"
                : fmt::format("has no {}", kAdapterWeightsFile),
        has_bin ? "save it with PEFT's save_pretrained, which writes safetensors" : "get the adapter again");
  }
  return SafetensorsFile(path_within(folder, kAdapterWeightsFile));
}

AdapterFolder::AdapterFolder(const std::string& path, const BaseShapes& base)
    : path_(path),
      config_(read_adapter_config(path)),
      file_(open_adapter_weights(path)),
      pairs_(adapter_pairs(file_.tensors(), config_, base, printable_path(file_.path()))) {
  if (pairs_.layout.double_rank) take_apart();
}

AdapterPair* AdapterFolder::pair_of(std::string_view module) {
  const auto found = std::ranges::lower_bound(pairs_.pairs, module, {}, &AdapterPair::module);
  return found != pairs_.pairs.end() && found->module == module ? &*found : nullptr;
}

const AdapterWhole* AdapterFolder::find_whole(std::string_view module) const {
  const auto found = std::ranges::lower_bound(pairs_.whole, module, {}, &AdapterWhole::module);
  return found != pairs_.whole.end() && found->module == module ? &*found : nullptr;
}

std::vector<float> AdapterFolder::read(const AdapterWhole& whole, int64_t first, int64_t count) const {
  const StoredTensor& stored = whole.tensor->second;
  const size_t size = dtype_size(*stored.dtype);
  const std::string bytes =
      file_.file().read(stored.begin + static_cast<uint64_t>(first) * size, static_cast<size_t>(count) * size);
  file_.file().check_unchanged();
  std::vector<float> values(static_cast<size_t>(count));
  decode(std::as_bytes(std::span(bytes)), *stored.dtype, host_tensor(values.data(), {count}));
  return values;
}

const std::string& AdapterFolder::bytes_of(const StoredTensors::value_type* tensor) {
  constexpr size_t kMostKept = 4;  // A and B of both packed parameters of a layer
  const auto found = std::ranges::find(kept_, tensor, &Kept::tensor);
  if (found != kept_.end()) {
    kept_.splice(kept_.begin(), kept_, found);
  } else {
    if (kept_.size() == kMostKept) kept_.pop_back();
    kept_.push_front({tensor, file_.file().read(tensor->second.begin, tensor->second.bytes())});
    file_.file().check_unchanged();
  }
  return kept_.front().bytes;
}

std::vector<float> AdapterFolder::matrix(const FactorPlace& place, int64_t rows, int64_t columns) {
  const std::string& bytes = bytes_of(place.tensor);
  std::vector<float> values(static_cast<size_t>(rows * columns));
  const DType dtype = *place.stored().dtype;
  if (dtype == DType::kBF16)
    gather<BF16>(bytes, place, columns, values);
  else if (dtype == DType::kF16)
    gather<F16>(bytes, place, columns, values);
  else
    gather<float>(bytes, place, columns, values);
  return values;
}

AdapterFactors AdapterFolder::read(const AdapterPair& pair) {
  return {.a = matrix(pair.a, pair.rank, pair.in), .b = matrix(pair.b, pair.out, pair.rank)};
}

// Whether w1 uses the first half of their ranks alone, and w3 the second.
bool AdapterFolder::is_joined(const AdapterPair& w1, const AdapterPair& w3) {
  const auto is_zero = [&](const AdapterPair& pair) {
    return std::ranges::all_of(matrix(pair.b, pair.out, pair.rank), [](float x) { return x == 0; });
  };
  return is_zero(half_of(w1, w1.rank / 2)) && is_zero(half_of(w3, 0));
}

// Where all pairs of w1 and w3 are joined, gives each its own half: the same sums.
void AdapterFolder::take_apart() {
  std::vector<std::pair<AdapterPair*, AdapterPair*>> joined;
  for (AdapterPair& pair : pairs_.pairs)
    if (pair.module.ends_with(".w1") && pair.rank == 2 * config_.r) {
      AdapterPair* w3 = pair_of(pair.module.substr(0, pair.module.size() - 1) + "3");
      if (w3 == nullptr || w3->a.tensor != pair.a.tensor) continue;  // each has its own
      if (!is_joined(pair, *w3)) return;
      joined.emplace_back(&pair, w3);
    }
  for (const auto& [w1, w3] : joined) {
    *w1 = half_of(*w1, 0);
    *w3 = half_of(*w3, w3->rank / 2);
  }
}

}  // namespace mixtune
