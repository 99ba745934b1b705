// LoadMap: how the tokens of a run were spread over experts as it went on, in bounded memory; and its drawing.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "report/scale.h"

namespace mixtune {

// The colour of an expert's tokens over the mean: attributes of a rectangle; and the line that says what it means.
std::string load_colour(double load);
std::string load_legend();

class LoadMap {
 public:
  static constexpr size_t kMostColumns = 64, kMostExperts = 4096, kMostRows = 128;

  // Each expert's tokens of a step. A step that has another number of experts than the first is left out.
  void add(int64_t step, std::span<const double> tokens);

  bool empty() const { return columns_.empty(); }
  size_t experts() const { return experts_; }
  size_t columns() const { return columns_.size(); }
  int64_t width() const { return width_; }  // steps of a column, at most
  // An expert's tokens over the mean of all experts, in a column; 1 is balance.
  double load(size_t column, size_t expert) const;
  // Its part of all tokens of the run.
  double share(size_t expert) const;

  // "<figure>": a row for each expert, a column for neighbouring steps.
  std::string figure(const std::string& title) const;

 private:
  struct Column {
    int64_t first = 0, last = 0;
    std::vector<double> tokens = {};
  };
  std::string draw(int width) const;
  std::string draw_row(size_t row, double y, double height, const Scale& steps) const;
  size_t experts_of_row() const { return (experts_ + kMostRows - 1) / kMostRows; }
  bool share_a_column(int64_t a, int64_t b) const;  // steps
  void append(Column column);
  void double_width();

  size_t experts_ = 0;
  int64_t origin_ = 0, width_ = 1;
  std::vector<Column> columns_;
};

}  // namespace mixtune
