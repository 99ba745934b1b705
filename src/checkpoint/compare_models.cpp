#include "checkpoint/compare_models.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <span>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "checkpoint/convert.h"
#include "checkpoint/read_in_turn.h"

namespace mixtune {

namespace {

// Sums over elements of a tensor.
struct DifferenceSums {
  int64_t differing = 0;
  double largest = 0, sum = 0, squares = 0, squares_of_a = 0;

  void add(double a, double b) {
    const double difference = std::abs(a - b);
    differing += std::bit_cast<uint64_t>(a) != std::bit_cast<uint64_t>(b);
    largest = std::max(largest, difference);
    sum += difference;
    squares += difference * difference;
    squares_of_a += a * a;
  }

  void add(const DifferenceSums& more) {
    differing += more.differing;
    largest = std::max(largest, more.largest);
    sum += more.sum;
    squares += more.squares;
    squares_of_a += more.squares_of_a;
  }
};

DifferenceSums sums_of(std::span<const double> a, std::span<const double> b) {
  constexpr size_t kBlock = 1 << 15;  // elements that a thread takes
  std::vector<DifferenceSums> blocks((a.size() + kBlock - 1) / kBlock);
#pragma omp parallel for
  for (size_t block = 0; block < blocks.size(); ++block)
    for (size_t i = block * kBlock; i < std::min(a.size(), (block + 1) * kBlock); ++i) blocks[block].add(a[i], b[i]);
  DifferenceSums all;
  for (const DifferenceSums& block : blocks) all.add(block);
  return all;
}

double relative_to(double squares_of_a, double squares) {
  if (squares == 0) return 0;
  return squares_of_a == 0 ? std::numeric_limits<double>::infinity() : std::sqrt(squares / squares_of_a);
}

// The same elements of both models' tensor, as many as are compared at once.
struct ComparedPart {
  size_t tensor;
  int64_t first, count;
  StoredValues a, b;
};

// Parts of all tensors, and the stretches of each: of a, then of b.
struct ComparisonPlan {
  std::vector<ComparedPart> parts;
  std::vector<FileStretch> stretches;

  void add(size_t tensor, int64_t elements, const StoredValues& a, const StoredValues& b) {
    const int64_t most = std::min(a.at_once(), b.at_once());
    for (int64_t done = 0; done < elements; done += most) {
      const int64_t count = std::min(most, elements - done);
      parts.push_back({tensor, done, count, a, b});
      for (const StoredValues& stored : {a, b}) stretches.push_back(stored.stretch(done, count));
    }
  }
};

StoredValues stored_in(const HfFolder& folder, const std::string& name, const Shape& shape) {
  return folder.stored({.name = name, .box = Box(shape)});
}

std::vector<ComparedTensor> tensors_of(const ComparedModel& a, const ComparedModel& b) {
  std::vector<ComparedTensor> tensors;
  std::unordered_map<std::string, size_t> place;
  for (const bool first : {true, false}) {
    const auto& [folder, shape] = first ? a : b;
    for (int param = 0; param < shape.size(); ++param)
      for (const HfBlock& block : shape.spec(param).blocks) {
        const auto [at, is_new] = place.emplace(block.name, tensors.size());
        if (is_new) tensors.push_back({.name = block.name, .a = {}, .b = {}});
        ComparedTensor& tensor = tensors[at->second];
        const DType dtype = stored_in(folder, block.name, block.shape()).dtype;
        (first ? tensor.a : tensor.b).emplace(ComparedTensor::Side{dtype, block.shape()});
      }
  }
  return tensors;
}

}  // namespace

std::vector<ComparedTensor> compare_models(const ComparedModel& a, const ComparedModel& b, const BytesDone& progress) {
  std::vector<ComparedTensor> tensors = tensors_of(a, b);
  ComparisonPlan plan;
  for (size_t t = 0; t < tensors.size(); ++t)
    if (const ComparedTensor& tensor = tensors[t]; tensor.is_compared())
      plan.add(t, tensor.a->shape.elements(), stored_in(a.folder, tensor.name, tensor.a->shape),
               stored_in(b.folder, tensor.name, tensor.b->shape));
  std::vector<DifferenceSums> sums(tensors.size());
  std::vector<double> values[2];
  std::vector<std::byte> buffer;
  const auto compare = [&](size_t i, std::span<const std::byte> bytes) {
    const ComparedPart& part = plan.parts[i / 2];
    const StoredValues& from = i % 2 == 0 ? part.a : part.b;
    std::vector<double>& wide = values[i % 2];
    wide.resize(part.count);
    if (!decode(from.values(part.first, part.count, bytes, buffer), from.dtype, host_tensor(wide.data(), {part.count})))
      throw_not_finite(*from.file, tensors[part.tensor].name);
    if (i % 2 == 1) sums[part.tensor].add(sums_of(values[0], values[1]));
  };
  read_in_turn(plan.stretches, compare, progress);
  for (size_t t = 0; t < tensors.size(); ++t) {
    if (!tensors[t].is_compared()) continue;
    tensors[t].differing = sums[t].differing;
    tensors[t].largest = sums[t].largest;
    tensors[t].mean = sums[t].sum / static_cast<double>(tensors[t].a->shape.elements());
    tensors[t].relative = relative_to(sums[t].squares_of_a, sums[t].squares);
  }
  return tensors;
}

}  // namespace mixtune
