#include "tensor/box.h"

namespace mixtune {

namespace {

Shape with_dim(const Shape& shape, int dim, int64_t size) {
  std::array<int64_t, Shape::kMaxRank> dims{};
  for (int d = 0; d < shape.rank(); ++d) dims[d] = d == dim ? size : shape[d];
  return {dims.data(), shape.rank()};
}

}  // namespace

Box::Box(const Shape& whole) : whole_(whole), size_(whole) {}

Box Box::cut(int dim, int64_t begin, int64_t count) const {
  MT_CHECK(dim >= 0 && dim < whole_.rank() && begin >= 0 && count >= 0 && begin + count <= size_[dim]);
  Box part = *this;
  part.begin_[dim] += begin;
  part.size_ = with_dim(size_, dim, count);
  return part;
}

int64_t Box::run_elements() const {
  int64_t run = 1;
  int d = whole_.rank() - 1;
  for (; d >= 0; --d) {
    run *= size_[d];
    if (size_[d] != whole_[d]) break;
  }
  return run;
}

int64_t Box::place(int64_t index) const {
  int64_t place = 0, stride = 1;
  for (int d = whole_.rank() - 1; d >= 0; --d) {
    place += (begin_[d] + (size_[d] == 0 ? 0 : index % size_[d])) * stride;
    if (size_[d] > 0) index /= size_[d];
    stride *= whole_[d];
  }
  return place;
}

int64_t Box::index(int64_t place) const {
  int64_t index = 0, stride = 1;
  for (int d = whole_.rank() - 1; d >= 0; --d) {
    const int64_t here = place % whole_[d] - begin_[d];
    MT_CHECK(here >= 0 && here < size_[d]);
    index += here * stride;
    place /= whole_[d];
    stride *= size_[d];
  }
  return index;
}

Box Box::intersect(const Box& other) const {
  MT_CHECK(whole_ == other.whole_);
  Box both = *this;
  for (int d = 0; d < whole_.rank(); ++d) {
    const int64_t begin = std::max(begin_[d], other.begin_[d]),
                  end = std::min(begin_[d] + size_[d], other.begin_[d] + other.size_[d]);
    both.begin_[d] = begin;
    both.size_ = with_dim(both.size_, d, std::max<int64_t>(end - begin, 0));
  }
  return both;
}

std::vector<SharedRun> shared_runs(const BoxRange& from, const BoxRange& to) {
  std::vector<SharedRun> runs;
  const Box both = from.box.intersect(to.box);
  both.for_each_run(0, both.elements(), [&](int64_t, int64_t place, int64_t count) {
    const int64_t a = from.box.index(place), b = to.box.index(place);
    const int64_t begin = std::max({int64_t{0}, from.first - a, to.first - b}),
                  end = std::min({count, from.first + from.count - a, to.first + to.count - b});
    if (begin >= end) return;
    const bool goes_on = !runs.empty() && runs.back().from + runs.back().count == a + begin &&
                         runs.back().to + runs.back().count == b + begin;
    if (goes_on)
      runs.back().count += end - begin;
    else
      runs.push_back({a + begin, b + begin, end - begin});
  });
  return runs;
}

}  // namespace mixtune
