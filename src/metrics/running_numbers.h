// What a number of a run was in its last steps.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <span>

namespace mixtune {

// The last kMost of the numbers that were added, in any order.
template <size_t kMost>
class LastNumbers {
 public:
  void add(double number) {
    numbers_[next_] = number;
    next_ = (next_ + 1) % kMost;
    size_ = std::min(size_ + 1, kMost);
  }
  std::span<const double> all() const { return {numbers_.data(), size_}; }

 private:
  std::array<double, kMost> numbers_ = {};
  size_t next_ = 0, size_ = 0;
};

// The means of kSteps successive numbers.
class RunningMean {
 public:
  static constexpr size_t kSteps = 20;

  void add(double number);
  // Of the last kSteps; of the first, and the smallest and largest yet; none before there are so many.
  std::optional<double> last() const { return last_; }
  std::optional<double> first() const { return first_; }
  std::optional<double> smallest() const { return smallest_; }
  std::optional<double> largest() const { return largest_; }

 private:
  LastNumbers<kSteps> numbers_;
  std::optional<double> last_, first_, smallest_, largest_;
};

// The median of the last kMost numbers.
class RunningMedian {
 public:
  static constexpr size_t kMost = 100;

  void add(double number) { numbers_.add(number); }
  // 0 before there are RunningMean::kSteps.
  double median() const;

 private:
  LastNumbers<kMost> numbers_;
};

// Tells the step in which something begins from those in which it lasts.
class Onset {
 public:
  // Whether it is so in this step, and was not in the one before.
  bool begins(bool is_so) {
    const bool was_so = is_so_;
    is_so_ = is_so;
    return is_so && !was_so;
  }

 private:
  bool is_so_ = false;
};

}  // namespace mixtune
