#include "report/series.h"

#include <algorithm>
#include <utility>

namespace mixtune {

namespace {

void join(Series::Span& into, const Series::Span& span) {
  if (into.count + into.holes == 0) into.first = span.first;
  into.last = span.last;
  into.least = std::min(into.least, span.least);
  into.most = std::max(into.most, span.most);
  into.sum += span.sum;
  into.count += span.count;
  into.holes += span.holes;
}

}  // namespace

Spread Spread::of(std::span<const double> numbers) {
  Series::Span all;
  for (const double number : numbers)
    if (Series::is_shown(number)) join(all, {.least = number, .most = number, .sum = number, .count = 1});
  return {all.least, all.most, all.mean()};
}

void Series::add(int64_t step, const Spread& value) {
  Span point{.first = step, .last = step, .holes = 1};
  if (is_shown(value.least) && is_shown(value.most) && is_shown(value.mean)) {
    point = {step, step, value.least, value.most, value.mean, 1, 0};
    if (value.least < whole_.least) step_of_least_ = step;
    last_ = value.mean;
  }
  if (spans_.empty()) origin_ = step;
  join(whole_, point);
  while (spans_.size() == kMostSpans && !share_a_span(spans_.back(), point)) double_width();
  append(point);
}

bool Series::share_a_span(const Span& a, const Span& b) const {
  return (a.first - origin_) / width_ == (b.first - origin_) / width_;
}

void Series::append(const Span& span) {
  if (spans_.empty() || !share_a_span(spans_.back(), span)) spans_.emplace_back();
  join(spans_.back(), span);
  has_band_ = has_band_ || spans_.back().least < spans_.back().most;
}

void Series::double_width() {
  width_ *= 2;
  for (const Span& span : std::exchange(spans_, {})) append(span);
}

}  // namespace mixtune
