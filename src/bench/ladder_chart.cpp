// Draws a LadderResult.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "bench/ladder.h"
#include "metrics/format_numbers.h"
#include "report/svg.h"

namespace mixtune {

namespace {

// Of the drawing, in its own units.
constexpr int kWidth = 760, kMargin = 20, kBarsAt = 250, kLongestBar = 310, kRowsAt = 72, kRowHeight = 34,
              kBarHeight = 22, kLineHeight = 18;

constexpr std::string_view kStyle = R"(<style>
svg { color-scheme: light dark; font: 13px system-ui, sans-serif }
.ground { fill: #ffffff } .text { fill: #1f2328 } .faint { fill: #59636e }
.bar { fill: #0969da } .peer { fill: #818b98 }
.title { font-weight: 600; font-size: 15px } .name { text-anchor: end }
@media (prefers-color-scheme: dark) {
.ground { fill: #0d1117 } .text { fill: #f0f6fc } .faint { fill: #9198a1 }
.bar { fill: #4493f8 } .peer { fill: #656c76 }
}
</style>
)";

SvgPoint at(int x, int y) {
  return {static_cast<double>(x), static_cast<double>(y)};
}

// `y`: of the row's top. `most`: the tokens a second of the longest bar.
std::string draw_row(const LadderRow& row, int y, double most) {
  const int baseline = y + kBarHeight / 2 + 5;
  std::string out = text_at(at(kBarsAt - 10, baseline), "name text", row.name);
  if (!row.skipped.empty())
    return out + fmt::format("<g><title>{}</title>\n{}</g>\n", xml_text(row.skipped),
                             text_at(at(kBarsAt, baseline), "faint", "skipped"));
  const int length = std::max(1, static_cast<int>(kLongestBar * (row.rates.tokens_per_second / most)));
  out += fmt::format(
      "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"2\" class=\"bar{}\"><title>{:.2f} ms</title></rect>\n",
      kBarsAt, y, length, kBarHeight, row.versions.empty() ? "" : " peer", row.milliseconds);
  return out + text_at(at(kBarsAt + length + 8, baseline), "text",
                       fmt::format("{} tokens/s, {:.2f}x", grouped(row.rates.tokens_per_second), row.speed_up));
}

// What is known of the rows beside their speed.
std::vector<std::string> notes_of(const LadderBench& bench, const LadderResult& result) {
  std::vector<std::string> notes = {fmt::format("Rungs: the median of {} rounds by turns, {} steps each.{}",
                                                bench.rounds, bench.step.steps,
                                                bench.peers.empty() ? "" : " Grey: peers, measured by themselves.")};
  for (const LadderRow& row : result.rows)
    if (!row.versions.empty()) notes.push_back(fmt::format("{}: {}", row.name, row.versions));
  return notes;
}

}  // namespace

std::string print_svg(const LadderBench& bench, const LadderResult& result) {
  const auto rows = static_cast<int>(result.rows.size());
  const std::vector<std::string> notes = notes_of(bench, result);
  const int notes_at = kRowsAt + rows * kRowHeight + kLineHeight;
  const int height = notes_at + static_cast<int>(notes.size()) * kLineHeight;
  double most = 0;
  for (const LadderRow& row : result.rows) most = std::max(most, row.rates.tokens_per_second);

  const std::string title = "A Mixtral training step on " + result.device;
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" role=\"img\">\n"
      "<title>{2}</title>\n",
      kWidth, height, xml_text(title));
  out += kStyle;
  out += fmt::format("<rect width=\"{}\" height=\"{}\" class=\"ground\"/>\n", kWidth, height);
  out += text_at(at(kMargin, 30), "title text", title);
  out += text_at(at(kMargin, 52), "faint", describe_work(bench.step));
  for (int i = 0; i < rows; ++i) out += draw_row(result.rows[i], kRowsAt + i * kRowHeight, most);
  for (size_t i = 0; i < notes.size(); ++i)
    out += text_at(at(kMargin, notes_at + static_cast<int>(i) * kLineHeight), "faint", notes[i]);
  return out + "</svg>\n";
}

}  // namespace mixtune
