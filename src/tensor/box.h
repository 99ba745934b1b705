// Box: a part of an N-dimensional tensor, the one notion of what a rank, a file or an adapter has of a tensor.
// Elements are counted row-major: "place" is an element's index in the whole tensor, "index" that in the box. ZeRO cuts
// a box into flat ranges [first, first + count) of its indices. A value: no memory, no device.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "tensor/tensor.h"

namespace mixtune {

class Box {
 public:
  Box() = default;
  explicit Box(const Shape& whole);  // the whole tensor

  // The part of this box with [begin, begin + count) of dimension `dim`, counted from this box's own begin.
  Box cut(int dim, int64_t begin, int64_t count) const;

  const Shape& whole() const { return whole_; }
  const Shape& shape() const { return size_; }
  int64_t begin(int dim) const { return begin_[dim]; }
  int64_t elements() const { return size_.elements(); }
  // The length of the stretches of neighbouring places that the box consists of: its inner dimensions that are whole,
  // and its part of the next.
  int64_t run_elements() const;

  int64_t place(int64_t index) const;
  int64_t index(int64_t place) const;     // `place` lies in the box
  Box intersect(const Box& other) const;  // of two boxes of one tensor; perhaps empty

  // Calls f(index, place, elements) for each stretch of the range [first, first + count) of indices, in their order.
  template <class F>
  void for_each_run(int64_t first, int64_t count, F&& f) const {
    const int64_t run = run_elements(), end = first + count;
    for (int64_t i = first; i < end;) {
      const int64_t n = contiguous() ? end - i : std::min(end - i, run - i % run);
      f(i, place(i), n);
      i += n;
    }
  }
  bool contiguous() const { return run_elements() == elements(); }

  bool operator==(const Box&) const = default;

 private:
  Shape whole_, size_;
  std::array<int64_t, Shape::kMaxRank> begin_{};
};

// A flat range of a box.
struct BoxRange {
  Box box;
  int64_t first = 0, count = 0;  // in indices of the box
};

// Elements that two parts of a tensor share: [from, from + count) in indices of the one, [to, to + count) of the other.
struct SharedRun {
  int64_t from, to, count;
  bool operator==(const SharedRun&) const = default;
};

// All runs that `from` and `to` share, in the order of places. Runs that are neighbours in both are one.
std::vector<SharedRun> shared_runs(const BoxRange& from, const BoxRange& to);

}  // namespace mixtune
