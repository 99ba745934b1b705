// Series: a curve of any length in bounded memory. Where it has many points, those of neighbouring steps share a span,
// which knows the least and the most of them.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

namespace mixtune {

// A number of a step, or the numbers that several ranks have of it.
struct Spread {
  double least, most, mean;
  static Spread of(double number) { return {number, number, number}; }
  static Spread of(std::span<const double> numbers);  // those that are shown; not finite where there are none
};

class Series {
 public:
  static constexpr size_t kMostSpans = 400;
  // What is larger is no number that a run can have, and is not shown.
  static constexpr double kLargest = 1e100;
  static bool is_shown(double number) { return number >= -kLargest && number <= kLargest; }

  struct Span {
    int64_t first = 0, last = 0;  // steps
    double least = std::numeric_limits<double>::infinity(), most = -std::numeric_limits<double>::infinity();
    double sum = 0;
    int64_t count = 0, holes = 0;  // points with a number, and without one

    double middle() const { return (static_cast<double>(first) + static_cast<double>(last)) / 2; }
    double mean() const { return sum / static_cast<double>(count); }  // where there is a point
  };

  // Of a larger step than the points before. One whose numbers are not shown is a hole.
  void add(int64_t step, const Spread& value);

  std::span<const Span> spans() const { return spans_; }
  int64_t width() const { return width_; }  // steps of a span, at most: those of its points are tight around them
  // Whether least and most differ anywhere: points share a span, or one is of several numbers.
  bool has_band() const { return has_band_; }

  bool empty() const { return whole_.count == 0; }  // of numbers
  const Span& whole() const { return whole_; }      // all points as one
  double last() const { return last_; }             // the last number; where there is one
  int64_t step_of_least() const { return step_of_least_; }

 private:
  bool share_a_span(const Span& a, const Span& b) const;
  void append(const Span& span);
  void double_width();

  std::vector<Span> spans_;
  int64_t origin_ = 0, width_ = 1;
  bool has_band_ = false;
  Span whole_ = {};
  double last_ = 0;
  int64_t step_of_least_ = 0;
};

}  // namespace mixtune
