#include "report/scale.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "metrics/format_numbers.h"

namespace mixtune {

namespace {

constexpr int kTicks = 4;  // that a rounded scale is made for

// The round number (1, 2 or 5 times a power of ten) that is the next from `number` on.
double round_up(double number) {
  const double power = std::pow(10, std::floor(std::log10(number)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= number * (1 - 1e-9)) return factor * power;
  return 10 * power;
}

// Without zeros after the point, and "e-04" as "e-4".
std::string tidy(std::string text) {
  const size_t e = text.find('e');
  std::string mantissa = text.substr(0, e), exponent = e == text.npos ? "" : text.substr(e + 1);
  if (mantissa.find('.') != mantissa.npos) mantissa.erase(mantissa.find_last_not_of('0') + 1);
  if (mantissa.ends_with('.')) mantissa.pop_back();
  if (e == text.npos) return mantissa;
  const bool negative = exponent.starts_with('-');
  exponent.erase(0, std::min(exponent.find_first_not_of("+-0"), exponent.size()));
  return fmt::format("{}e{}{}", mantissa, negative ? "-" : "", exponent.empty() ? "0" : exponent);
}

// 1,500,000 as "1.5M"; "" where that is not all of the number.
std::string with_unit(double number) {
  for (const auto& [unit, name] : {std::pair(1e12, "T"), {1e9, "G"}, {1e6, "M"}, {1e3, "k"}})
    if (std::fabs(number) >= unit) return tidy(fmt::format("{:.3f}", number / unit)) + name;
  return tidy(fmt::format("{:.3f}", number));
}

}  // namespace

Scale::Scale(Kind kind, const Ends& numbers, const Ends& places)
    : kind_(kind),
      least_(numbers.least),
      most_(std::max(numbers.least, numbers.most)),
      from_(places.least),
      to_(places.most) {
  if (most_ > least_) return;
  const double least = least_;
  const double room = kind == Kind::kWhole ? std::max(1.0, least * 0.1)
                      : kind == Kind::kLog ? least * 0.5
                                           : std::fabs(least) * 0.1;
  least_ -= kind == Kind::kWhole ? 0 : room;
  most_ += room > 0 ? room : 1;
}

double Scale::step(int wanted) const {
  const double step = round_up((most_ - least_) / std::max(wanted, 1));
  return kind_ == Kind::kWhole ? std::max(step, 1.0) : step;
}

Scale Scale::rounded() const {
  Scale scale = *this;
  if (kind_ == Kind::kLog) {
    scale.least_ = least_ * 0.9;
    scale.most_ = most_ * 1.1;
    return scale;
  }
  scale.step_ = step(kTicks);
  scale.least_ = std::floor(least_ / scale.step_ + 1e-9) * scale.step_;
  scale.most_ = std::ceil(most_ / scale.step_ - 1e-9) * scale.step_;
  return scale;
}

double Scale::place(double number) const {
  const auto on_axis = [&](double n) {
    return kind_ == Kind::kLog ? std::log10(std::max(n, least_)) : n;
  };
  const double part = (on_axis(number) - on_axis(least_)) / (on_axis(most_) - on_axis(least_));
  return from_ + (to_ - from_) * std::clamp(part, 0.0, 1.0);
}

std::vector<double> Scale::ticks(int wanted) const {
  std::vector<double> ticks;
  if (kind_ == Kind::kLog) {
    const auto first = static_cast<int>(std::ceil(std::log10(least_) - 1e-9)),
               last = static_cast<int>(std::floor(std::log10(most_) + 1e-9));
    const int every = std::max(1, (last - first + wanted) / std::max(wanted, 1));
    for (int power = first; power <= last; power += every) ticks.push_back(std::pow(10, power));
    if (ticks.size() > 2) return ticks;
    ticks.clear();
    for (int power = first - 1; power <= last; ++power)
      for (const int factor : {1, 2, 5})
        if (const double tick = factor * std::pow(10, power); tick >= least_ && tick <= most_) ticks.push_back(tick);
    if (ticks.size() > 1) return ticks;
    ticks.clear();
  }
  const double step = step_ > 0 ? step_ : this->step(wanted);
  const double first = std::ceil(least_ / step - 1e-9), last = std::floor(most_ / step + 1e-9);
  for (double i = first; i <= last && std::ssize(ticks) < 100; ++i) ticks.push_back(i * step + 0.0);  // no -0
  if (ticks.empty()) ticks.push_back(least_);
  return ticks;
}

std::string tick_label(double tick, const std::vector<double>& ticks) {
  double largest = 0, step = 0, widest = 0;
  for (size_t i = 0; i < ticks.size(); ++i) {
    largest = std::max(largest, std::fabs(ticks[i]));
    if (i == 0) continue;
    step = step == 0 ? ticks[i] - ticks[i - 1] : std::min(step, ticks[i] - ticks[i - 1]);
    widest = std::max(widest, ticks[i] - ticks[i - 1]);
  }
  if (tick == 0) return "0";
  const bool log = widest > 1.5 * step;
  if (step == 0 || log) return short_number(tick);
  if (largest >= 1e15 || largest < 1e-2 || std::fabs(tick) < 1e-3) return tidy(fmt::format("{:.2e}", tick));
  if (largest >= 1e4) return step >= largest * 1e-3 ? with_unit(tick) : grouped(tick);
  const int decimals = std::clamp(static_cast<int>(std::ceil(-std::log10(step) - 1e-9)), 0, 9);
  return decimals == 0 ? grouped(tick) : fmt::format("{:.{}f}", tick, decimals);
}

std::string short_number(double number) {
  const double size = std::fabs(number);
  if (size == 0) return "0";
  if (size >= 1e15 || size < 1e-3) return tidy(fmt::format("{:.3e}", number));
  if (size >= 1000) return grouped(number);
  const int decimals = std::clamp(3 - static_cast<int>(std::floor(std::log10(size))), 0, 6);
  return tidy(fmt::format("{:.{}f}", number, decimals));
}

}  // namespace mixtune
