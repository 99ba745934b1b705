#include "report/load_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "metrics/format_numbers.h"
#include "report/scale.h"
#include "report/svg.h"

namespace mixtune {

namespace {

constexpr int kLevels = 10;  // of colour between balance and none, or twice the mean
constexpr double kMapTop = 4, kMapRight = 48, kMapLine = 13;

// From -kLevels, of an expert without a token, over 0 to kLevels.
int level_of(double load) {
  return std::clamp(static_cast<int>(std::lround((load - 1) * kLevels)), -kLevels, kLevels);
}

// The attributes of a rectangle.
std::string colour_of(int level) {
  if (level == 0) return "class=\"even\"";
  return fmt::format("class=\"{}\" fill-opacity=\"{:.1f}\"", level < 0 ? "below" : "above",
                     std::abs(static_cast<double>(level)) / kLevels);
}

void add_to(std::vector<double>& sums, std::span<const double> numbers) {
  for (size_t i = 0; i < numbers.size(); ++i) sums[i] += numbers[i];
}

}  // namespace

std::string load_colour(double load) {
  return colour_of(level_of(load));
}

std::string load_legend() {
  std::string out = "<p class=\"legend\">tokens of an expert / mean of all: <span>0 ";
  for (int level = -kLevels; level <= kLevels; level += 2)
    out +=
        fmt::format("<svg viewBox=\"0 0 12 12\" width=\"12\" height=\"12\"><rect width=\"12\" height=\"12\" {}/></svg>",
                    colour_of(level));
  return out + " 2 and more</span> the middle is balance</p>\n";
}

void LoadMap::add(int64_t step, std::span<const double> tokens) {
  if (columns_.empty()) experts_ = tokens.size();
  const bool counts = std::ranges::all_of(tokens, [](double number) { return number >= 0 && number <= 1e15; });
  if (tokens.empty() || tokens.size() != experts_ || experts_ > kMostExperts || !counts) return;
  if (columns_.empty()) origin_ = step;
  while (columns_.size() == kMostColumns && !share_a_column(columns_.back().first, step)) double_width();
  append({step, step, {tokens.begin(), tokens.end()}});
}

bool LoadMap::share_a_column(int64_t a, int64_t b) const {
  return (a - origin_) / width_ == (b - origin_) / width_;
}

void LoadMap::append(Column column) {
  if (columns_.empty() || !share_a_column(columns_.back().first, column.first)) {
    columns_.push_back(std::move(column));
    return;
  }
  columns_.back().last = column.last;
  add_to(columns_.back().tokens, column.tokens);
}

void LoadMap::double_width() {
  width_ *= 2;
  for (Column& column : std::exchange(columns_, {})) append(std::move(column));
}

double LoadMap::load(size_t column, size_t expert) const {
  const std::vector<double>& tokens = columns_[column].tokens;
  const double all = std::accumulate(tokens.begin(), tokens.end(), 0.0);
  return all > 0 ? tokens[expert] * static_cast<double>(experts_) / all : 0;
}

double LoadMap::share(size_t expert) const {
  double own = 0, all = 0;
  for (const Column& column : columns_) {
    own += column.tokens[expert];
    all += std::accumulate(column.tokens.begin(), column.tokens.end(), 0.0);
  }
  return all > 0 ? own / all : 0;
}

// Neighbouring cells of one colour are one rectangle.
std::string LoadMap::draw_row(size_t row, double y, double height, const Scale& steps) const {
  const size_t each = experts_of_row(), first = row * each, end = std::min(first + each, experts_);
  const auto level = [&](size_t column) {
    double sum = 0;
    for (size_t expert = first; expert < end; ++expert) sum += load(column, expert);
    return level_of(sum / static_cast<double>(end - first));
  };
  std::string out;
  for (size_t column = 0; column < columns();) {
    const size_t begin = column++;
    const int colour = level(begin);
    while (column < columns() && columns_[column].first == columns_[column - 1].last + 1 && level(column) == colour)
      ++column;
    const double from = steps.place(static_cast<double>(columns_[begin].first)),
                 to = steps.place(static_cast<double>(columns_[column - 1].last + 1));
    out += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" {}/>\n", from, y,
                       to - from + 0.2, height, colour_of(colour));
  }
  return out;
}

std::string LoadMap::draw(int width) const {
  const size_t rows = (experts_ + experts_of_row() - 1) / experts_of_row();
  const double height = std::clamp(260.0 / static_cast<double>(rows), 4.0, 24.0);
  const double left = 60, right = width - kMapRight, bottom = kMapTop + height * static_cast<double>(rows);
  const auto every = static_cast<size_t>(std::ceil(kMapLine / height));  // rows that have a label
  const Scale steps(Scale::Kind::kWhole,
                    {static_cast<double>(columns_.front().first), static_cast<double>(columns_.back().last + 1)},
                    {left, right});
  std::string out =
      fmt::format("<svg viewBox=\"0 0 {} {:.1f}\" role=\"img\" aria-label=\"load of experts\">\n", width, bottom + 24);
  for (size_t row = 0; row < rows; ++row) {
    const double y = kMapTop + height * static_cast<double>(row), middle = y + height / 2 + 4;
    out += draw_row(row, y, height - (height > 8 ? 1 : 0), steps);
    if (row % every != 0) continue;
    const size_t expert = row * experts_of_row();
    out += text_at({left - 6, middle}, "end", fmt::format("expert {}", expert));
    if (experts_of_row() == 1)
      out += text_at({right + 6, middle}, "begin", fmt::format("{:.1f}%", 100 * share(expert)));
  }
  for (const double tick : steps.ticks(static_cast<int>((right - left) / 90)))
    out += text_at({steps.place(tick), bottom + 17}, "mid", grouped(tick));
  return out + "</svg>\n";
}

std::string LoadMap::figure(const std::string& title) const {
  std::string note = "right: an expert's part of all tokens";
  if (width_ > 1) note += fmt::format("; a column: up to {} steps", grouped(static_cast<double>(width_)));
  if (experts_of_row() > 1) note = fmt::format("a row: the mean of {} experts", experts_of_row());
  return fmt::format(
      "<figure class=\"wide\">\n<figcaption><h3>{}</h3>\n{}<p class=\"facts\">{}</p>\n</figcaption>\n"
      "<div class=\"if-wide\">\n{}</div>\n<div class=\"if-narrow\">\n{}</div>\n</figure>\n",
      xml_text(title), load_legend(), note, draw(824), draw(400));
}

}  // namespace mixtune
