#include "report/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "metrics/format_numbers.h"
#include "report/scale.h"
#include "report/svg.h"

namespace mixtune {

namespace {

constexpr ChartSize kNarrow = {400, 230}, kWide = {824, 300};
constexpr double kTop = 8, kBottom = 24, kRight = 26, kDigit = 6.6;  // the width of a digit
constexpr double kMark = 6;

// The least and the most of all curves, in the chart's unit.
struct Extent {
  double least = std::numeric_limits<double>::infinity(), most = -std::numeric_limits<double>::infinity();
};

Extent extent_of(const Chart& chart) {
  Extent extent;
  for (const Curve& curve : chart.curves) {
    if (curve.series->empty()) continue;
    extent.least = std::min(extent.least, curve.series->whole().least / chart.factor);
    extent.most = std::max(extent.most, curve.series->whole().most / chart.factor);
  }
  return extent;
}

struct Axes {
  Scale x, y;
  double left, bottom, right;
};

Axes axes_of(const Chart& chart, const StepRange& steps, const ChartSize& size) {
  const Extent extent = extent_of(chart);
  const double bottom = size.height - kBottom;
  const Scale y =
      Scale(is_log(chart) ? Scale::Kind::kLog : Scale::Kind::kLinear, {extent.least, extent.most}, {bottom, kTop})
          .rounded();
  size_t longest = 0;
  const std::vector<double> ticks = y.ticks(4);
  for (const double tick : ticks) longest = std::max(longest, tick_label(tick, ticks).size());
  const double left = 12 + kDigit * static_cast<double>(longest), right = size.width - kRight;
  return {.x = Scale(Scale::Kind::kWhole, {static_cast<double>(steps.first), static_cast<double>(steps.last)},
                     {left, right}),
          .y = y,
          .left = left,
          .bottom = bottom,
          .right = right};
}

std::string draw_axes(const Axes& axes) {
  std::string labels;
  PathData grid, base;
  const std::vector<double> ys = axes.y.ticks(4);
  for (const double tick : ys) {
    const double y = axes.y.place(tick);
    grid.move({axes.left, y});
    grid.line({axes.right, y});
    labels += text_at({axes.left - 6, y + 4}, "end", tick_label(tick, ys));
  }
  base.move({axes.left, axes.bottom});
  base.line({axes.right, axes.bottom});
  for (const double tick : axes.x.ticks(static_cast<int>((axes.right - axes.left) / 75))) {
    const double x = axes.x.place(tick);
    base.move({x, axes.bottom});
    base.line({x, axes.bottom + 4});
    labels += text_at({x, axes.bottom + 17}, "mid", grouped(tick));
  }
  return grid.element("grid") + base.element("axis") + labels;
}

// Successive spans without a gap between them.
using Stretch = std::span<const Series::Span>;

std::vector<Stretch> stretches_of(const Curve& curve) {
  const Stretch all = curve.series->spans();
  std::vector<Stretch> stretches;
  size_t begin = 0;
  for (size_t i = 0; i <= all.size(); ++i) {
    const bool ends = i == all.size() || all[i].count == 0;
    const bool jumps = !ends && i > begin && !curve.dots && all[i].first > all[i - 1].last + 1;
    if ((ends || jumps) && i > begin) stretches.push_back(all.subspan(begin, i - begin));
    if (ends) begin = i + 1;
    if (jumps) begin = i;
  }
  return stretches;
}

void add_band(const Stretch& stretch, const Axes& axes, double factor, PathData& band) {
  const auto at = [&](const Series::Span& span, double number) {
    return SvgPoint{axes.x.place(span.middle()), axes.y.place(number / factor)};
  };
  for (size_t i = 0; i < stretch.size(); ++i)
    i == 0 ? band.move(at(stretch[i], stretch[i].most)) : band.line(at(stretch[i], stretch[i].most));
  for (size_t i = stretch.size(); i-- > 0;) band.line(at(stretch[i], stretch[i].least));
  band.close();
}

std::string draw_curve(const Curve& curve, const Axes& axes, double factor) {
  PathData band, line, dots;
  for (const Stretch& stretch : stretches_of(curve)) {
    if (curve.series->has_band()) add_band(stretch, axes, factor, band);
    for (size_t i = 0; i < stretch.size(); ++i) {
      const SvgPoint place = {axes.x.place(stretch[i].middle()), axes.y.place(stretch[i].mean() / factor)};
      i == 0 ? line.move(place) : line.line(place);
      if (curve.dots || stretch.size() == 1) dots.dot(place);
    }
  }
  const std::string colour = fmt::format("c{}", curve.colour % kColours);
  return band.element("band " + colour) +
         line.element(fmt::format("line {}{}", colour, curve.colour >= kColours ? " dashed" : "")) +
         dots.element("dots " + colour);
}

bool has_holes(const Chart& chart) {
  return std::ranges::any_of(chart.curves, [](const Curve& curve) { return curve.series->whole().holes > 0; });
}

std::string draw_holes(const Chart& chart, const Axes& axes) {
  PathData marks;
  for (const Curve& curve : chart.curves)
    for (const Series::Span& span : curve.series->spans()) {
      if (span.holes == 0) continue;
      marks.move({axes.x.place(span.middle()), axes.bottom});
      marks.line({axes.x.place(span.middle()), axes.bottom - kMark});
    }
  return marks.element("hole");
}

std::string legend_of(const Chart& chart) {
  if (std::ranges::all_of(chart.curves, [](const Curve& curve) { return curve.name.empty(); })) return "";
  std::string out = "<p class=\"legend\">";
  for (const Curve& curve : chart.curves)
    out += fmt::format(
        "<span><svg viewBox=\"0 0 22 8\" width=\"22\" height=\"8\"><path class=\"line c{0}{1}\" d=\"M1 4L21 4\"/>{2}"
        "</svg> {3}</span>\n",
        curve.colour % kColours, curve.colour >= kColours ? " dashed" : "",
        curve.dots ? fmt::format("<path class=\"dots c{}\" d=\"M11 4h0\"/>", curve.colour % kColours) : "",
        xml_text(curve.name));
  return out + "</p>\n";
}

// What the one curve's numbers come to.
std::string facts_of(const Chart& chart) {
  if (chart.curves.size() != 1) return "";
  const Series& series = *chart.curves[0].series;
  return fmt::format("<p class=\"facts\">last {}, least {}, most {}</p>\n", short_number(series.last() / chart.factor),
                     short_number(series.whole().least / chart.factor),
                     short_number(series.whole().most / chart.factor));
}

std::string notes_of(const Chart& chart) {
  std::vector<std::string> notes;
  int64_t width = 1;
  bool spread = false;
  for (const Curve& curve : chart.curves) {
    if (!curve.dots) width = std::max(width, curve.series->width());
    spread = spread || curve.series->has_band();
  }
  if (width > 1)
    notes.push_back(
        fmt::format("line: means of up to {} steps; band: their least and most", grouped(static_cast<double>(width))));
  else if (spread)
    notes.push_back("line: mean; band: least and most");
  if (is_log(chart)) notes.push_back("log scale");
  if (has_holes(chart)) notes.push_back("marks on the axis: steps without a number");
  if (notes.empty()) return "";
  return fmt::format("<p class=\"facts\">{}</p>\n", fmt::join(notes, "; "));
}

}  // namespace

bool is_log(const Chart& chart) {
  constexpr double kFarApart = 30;
  const Extent extent = extent_of(chart);
  return extent.least > 0 && extent.most > kFarApart * extent.least;
}

std::string draw(const Chart& chart, const StepRange& steps, const ChartSize& size) {
  const Axes axes = axes_of(chart, steps, size);
  std::string out = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n", size.width, size.height,
                                xml_text(chart.title));
  out += draw_axes(axes);
  for (const Curve& curve : chart.curves) out += draw_curve(curve, axes, chart.factor);
  return out + draw_holes(chart, axes) + "</svg>\n";
}

std::string figure(const Chart& chart, const StepRange& steps, bool wide) {
  std::string out =
      fmt::format("<figure{}>\n<figcaption><h3>{}{}</h3>\n", wide ? " class=\"wide\"" : "", xml_text(chart.title),
                  chart.unit.empty() ? "" : fmt::format(" <small>{}</small>", xml_text(chart.unit)));
  out += facts_of(chart) + legend_of(chart) + notes_of(chart) + "</figcaption>\n";
  if (wide) out += "<div class=\"if-wide\">\n" + draw(chart, steps, kWide) + "</div>\n<div class=\"if-narrow\">\n";
  out += draw(chart, steps, kNarrow);
  return out + (wide ? "</div>\n" : "") + "</figure>\n";
}

}  // namespace mixtune
