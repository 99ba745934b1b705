// Draws curves over the steps of runs. Classes give colours: the page's style has them.
#pragma once

#include <string>
#include <vector>

#include "report/series.h"

namespace mixtune {

struct Curve {
  std::string name = {};  // in the legend; "": it is not there
  const Series* series;
  int colour = 0;     // of kColours, then the same dashed
  bool dots = false;  // of some steps alone: a mark at each, and no gap where steps lie between
};

constexpr int kColours = 6, kMostCurves = 2 * kColours;

struct Chart {
  std::string title;
  std::string unit = {};  // "ms", "GiB"
  double factor = 1;      // of this unit in a curve's
  std::vector<Curve> curves;
};

// What the x axis has, for all charts of a page.
struct StepRange {
  int64_t first, last;
};

struct ChartSize {
  int width, height;
};

// "<svg ...>": axes with round numbers, of a curve the mean of each span and behind it a band from its least to its
// most, a gap where there is no number, and a mark on the x axis where a step has none. The y axis is a log scale where
// numbers are positive and far apart, else linear.
std::string draw(const Chart& chart, const StepRange& steps, const ChartSize& size);

// "<figure>": title, legend, what the numbers come to, and the drawing. `wide`: where there is room, twice as wide.
std::string figure(const Chart& chart, const StepRange& steps, bool wide);

bool is_log(const Chart& chart);

}  // namespace mixtune
