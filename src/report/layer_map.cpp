#include "report/layer_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "metrics/format_numbers.h"
#include "report/load_map.h"
#include "report/svg.h"

namespace mixtune {

namespace {

constexpr double kLayersTop = 4, kLayersLabels = 24, kLabelHeight = 13;  // kLabelHeight: that labels need
constexpr double kNumberWidth = 34;                                      // that a number in a cell needs

bool are_counts(const std::vector<double>& layer, size_t experts) {
  return layer.size() == experts &&
         std::ranges::all_of(layer, [](double number) { return number >= 0 && number <= 1e15; });
}

}  // namespace

void LayerMap::add(const std::vector<std::vector<double>>& layers) {
  if (layers.empty() || layers[0].empty() || layers.size() > kMostCells / layers[0].size()) return;
  const size_t experts = tokens_.empty() ? layers[0].size() : tokens_[0].size();
  if (!tokens_.empty() && layers.size() != tokens_.size()) return;
  if (!std::ranges::all_of(layers, [&](const auto& layer) { return are_counts(layer, experts); })) return;
  if (tokens_.empty()) tokens_.assign(layers.size(), std::vector<double>(experts));
  for (size_t l = 0; l < layers.size(); ++l)
    for (size_t e = 0; e < experts; ++e) tokens_[l][e] += layers[l][e];
  ++steps_;
}

double LayerMap::load(size_t layer, size_t expert) const {
  const std::vector<double>& tokens = tokens_[layer];
  const double all = std::accumulate(tokens.begin(), tokens.end(), 0.0);
  return all > 0 ? tokens[expert] * static_cast<double>(tokens.size()) / all : 0;
}

std::string LayerMap::draw(int width) const {
  const size_t layers = tokens_.size(), experts = tokens_[0].size();
  const double height = std::clamp(520.0 / static_cast<double>(layers), 4.0, 18.0), left = 60, right = width - 12.0,
               cell = (right - left) / static_cast<double>(experts),
               bottom = kLayersTop + height * static_cast<double>(layers);
  const auto every = static_cast<size_t>(std::ceil(kLabelHeight / height)),
             every_expert = static_cast<size_t>(std::ceil(kNumberWidth / cell));
  std::string out =
      fmt::format("<svg viewBox=\"0 0 {} {:.1f}\" role=\"img\" aria-label=\"load of experts by layer\">\n", width,
                  bottom + kLayersLabels);
  for (size_t l = 0; l < layers; ++l) {
    const double y = kLayersTop + height * static_cast<double>(l);
    for (size_t e = 0; e < experts; ++e) {
      out += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" {}>",
                         left + cell * static_cast<double>(e), y, cell - (cell > 8 ? 1 : 0),
                         height - (height > 8 ? 1 : 0), load_colour(load(l, e)));
      out += fmt::format("<title>layer {}, expert {}: {:.2f}</title></rect>\n", l, e, load(l, e));
    }
    if (l % every == 0) out += text_at({left - 6, y + height / 2 + 4}, "end", fmt::format("layer {}", l));
  }
  for (size_t e = 0; e < experts; e += every_expert)
    out += text_at({left + cell * (static_cast<double>(e) + 0.5), bottom + 17}, "mid", fmt::format("{}", e));
  return out + "</svg>\n";
}

std::string LayerMap::figure(const std::string& title) const {
  return fmt::format(
      "<figure class=\"wide\">\n<figcaption><h3>{}</h3>\n{}<p class=\"facts\">a row: a layer; a column: an expert; of "
      "the "
      "{} steps that have it</p>\n</figcaption>\n"
      "<div class=\"if-wide\">\n{}</div>\n<div class=\"if-narrow\">\n{}</div>\n</figure>\n",
      xml_text(title), load_legend(), grouped(static_cast<double>(steps_)), draw(824), draw(400));
}

}  // namespace mixtune
