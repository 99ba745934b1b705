// LayerMap: how the tokens of a run were spread over the experts of each layer, all of its steps together.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace mixtune {

class LayerMap {
 public:
  static constexpr size_t kMostCells = size_t{1} << 14;

  // Tokens of each expert of each layer in a step. Those of another shape than the first, or that are no counts, or of
  // more than kMostCells, are left out.
  void add(const std::vector<std::vector<double>>& layers);

  bool empty() const { return steps_ == 0; }
  int64_t steps() const { return steps_; }
  // An expert's tokens over the mean of its layer; 1 is balance.
  double load(size_t layer, size_t expert) const;

  // "<figure>": a row for each layer, a cell for each expert.
  std::string figure(const std::string& title) const;

 private:
  std::string draw(int width) const;

  int64_t steps_ = 0;
  std::vector<std::vector<double>> tokens_;  // [L][E]
};

}  // namespace mixtune
