#include "report/chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>

#include "base/test_xml.h"
#include "report/load_map.h"
#include "report/scale.h"
#include "report/svg.h"

namespace mixtune {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> labels_of(const Scale& scale, int wanted) {
  std::vector<std::string> labels;
  const std::vector<double> ticks = scale.ticks(wanted);
  for (const double tick : ticks) labels.push_back(tick_label(tick, ticks));
  return labels;
}

TEST(Scale, HasRoundTicks) {
  using Kind = Scale::Kind;
  EXPECT_THAT(labels_of(Scale(Kind::kLinear, {2.95, 6.66}, {100, 0}).rounded(), 4),
              ElementsAre("2", "3", "4", "5", "6", "7"));
  EXPECT_THAT(labels_of(Scale(Kind::kLinear, {0, 1.5e-3}, {100, 0}).rounded(), 4),
              ElementsAre("0", "5e-4", "1e-3", "1.5e-3"));
  EXPECT_THAT(labels_of(Scale(Kind::kLinear, {-0.2, 0.3}, {100, 0}), 3), ElementsAre("-0.2", "0", "0.2"));
  EXPECT_THAT(labels_of(Scale(Kind::kLinear, {2222, 10222}, {100, 0}).rounded(), 4),
              ElementsAre("2k", "4k", "6k", "8k", "10k", "12k"));
  EXPECT_THAT(labels_of(Scale(Kind::kWhole, {0, 240}, {0, 400}), 5), ElementsAre("0", "50", "100", "150", "200"));
  EXPECT_THAT(labels_of(Scale(Kind::kWhole, {1, 3}, {0, 400}), 5), ElementsAre("1", "2", "3"));
  EXPECT_THAT(labels_of(Scale(Kind::kLog, {0.8, 60}, {100, 0}).rounded(), 4),
              ElementsAre("1", "2", "5", "10", "20", "50"));
  EXPECT_THAT(labels_of(Scale(Kind::kLog, {0.01, 1000}, {100, 0}).rounded(), 4), ElementsAre("0.01", "1", "100"));
}

TEST(Scale, KeepsNumbersOnItsAxis) {
  for (const auto kind : {Scale::Kind::kLinear, Scale::Kind::kWhole, Scale::Kind::kLog})
    for (const auto& [least, most] :
         {std::pair(1.0, 1.0), {1.0, 2.0}, {1e-300, 1e99}, {5e-324, 5e-324}, {1e99, 1e99}}) {
      const Scale scale = Scale(kind, {least, most}, {10, 110}).rounded();
      for (const double number : {-1e300, 0.0, least, most, 1e300}) {
        const double place = scale.place(number);
        EXPECT_TRUE(place >= 10 && place <= 110) << least << " " << most << " " << number << ": " << place;
      }
      EXPECT_GE(scale.ticks(4).size(), 1u);
      EXPECT_LE(scale.ticks(4).size(), 100u);
    }
  const Scale down(Scale::Kind::kLinear, {0, 10}, {100, 0});
  EXPECT_EQ(down.place(2.5), 75);
  EXPECT_DOUBLE_EQ(Scale(Scale::Kind::kLog, {1, 100}, {0, 100}).place(10), 50);
}

// What a reader would make of all points at once.
struct Kept {
  double least = 1e300, most = -1e300, sum = 0;
  int64_t count = 0, holes = 0;
};

TEST(Series, ThinsWithoutLosingTheLeastAndTheMost) {
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  for (const int64_t points : {1, 399, 400, 401, 1000, 12345}) {
    Series series;
    Kept all;
    for (int64_t i = 0; i < points; ++i) {
      const double number = i % 97 == 3 ? NAN : normal(random);
      series.add(i, Spread::of(number));
      if (std::isnan(number)) {
        ++all.holes;
        continue;
      }
      all.least = std::min(all.least, number);
      all.most = std::max(all.most, number);
      all.sum += number;
      ++all.count;
    }
    ASSERT_LE(series.spans().size(), Series::kMostSpans);
    EXPECT_GE(series.spans().size() * static_cast<size_t>(series.width()), static_cast<size_t>(points));
    Kept kept;
    int64_t next = 0;
    for (const Series::Span& span : series.spans()) {
      EXPECT_EQ(span.first, next);
      EXPECT_LT(span.last - span.first, series.width());
      EXPECT_EQ(span.count + span.holes, span.last - span.first + 1);
      next = span.last + 1;
      kept.least = std::min(kept.least, span.least);
      kept.most = std::max(kept.most, span.most);
      kept.sum += span.sum;
      kept.count += span.count;
      kept.holes += span.holes;
    }
    EXPECT_EQ(next, points);
    EXPECT_EQ(kept.least, all.least);
    EXPECT_EQ(kept.most, all.most);
    EXPECT_NEAR(kept.sum, all.sum, 1e-9);
    EXPECT_EQ(kept.count, all.count);
    EXPECT_EQ(kept.holes, all.holes);
  }
}

TEST(Series, TakesStepsFarApart) {
  Series series;
  for (int64_t step = 1; step < int64_t{1} << 40; step += step / 50 + 1) series.add(step, Spread::of(1));
  EXPECT_LE(series.spans().size(), Series::kMostSpans);
  EXPECT_FALSE(series.has_band());
}

size_t parts(const std::string& svg, const std::string& style) {
  for (const std::string& tag : tags_of_xml(svg)) {
    if (tag.find("class=\"" + style + "\"") == tag.npos) continue;
    return static_cast<size_t>(std::ranges::count(tag, 'M'));
  }
  return 0;
}

TEST(Chart, LeavesGaps) {
  Series series;
  for (const int64_t step : {1, 2, 3, 7, 8, 9}) series.add(step, Spread::of(static_cast<double>(step)));  // 4 to 6 lack
  series.add(10, Spread::of(NAN));
  series.add(11, Spread::of(4));
  const Chart chart = {.title = "a <b>", .curves = {{.series = &series}}};
  const std::string svg = draw(chart, {1, 11}, {400, 230});
  EXPECT_EQ(parts(svg, "line c0"), 3u);
  EXPECT_EQ(parts(svg, "dots c0"), 1u);  // one point alone
  EXPECT_EQ(parts(svg, "hole"), 1u);
  EXPECT_THAT(svg, HasSubstr("a &lt;b&gt;"));
  const Chart dots = {.title = "b", .curves = {{.series = &series, .dots = true}}};
  EXPECT_EQ(parts(draw(dots, {1, 11}, {400, 230}), "line c0"), 2u);
}

TEST(Chart, HasABandWherePointsShareASpan) {
  Series few, many;
  for (int64_t step = 1; step <= 100; ++step) few.add(step, Spread::of(static_cast<double>(step % 7)));
  for (int64_t step = 1; step <= 1000; ++step) many.add(step, Spread::of(static_cast<double>(step % 7)));
  const auto band = [](const Series& series) {
    return parts(draw({.title = "", .curves = {{.series = &series}}}, {1, 1000}, {400, 230}), "band c0");
  };
  EXPECT_EQ(band(few), 0u);
  EXPECT_EQ(band(many), 1u);
}

TEST(Chart, IsLogarithmicWhereNumbersAreFarApart) {
  Series far, zero;
  for (const double number : {1.0, 1000.0}) far.add(static_cast<int64_t>(number), Spread::of(number));
  for (const double number : {0.0, 1000.0}) zero.add(static_cast<int64_t>(number), Spread::of(number));
  EXPECT_TRUE(is_log({.title = "", .curves = {{.series = &far}}}));
  EXPECT_FALSE(is_log({.title = "", .curves = {{.series = &zero}}}));
}

TEST(LoadMap, IsBoundedAndKeepsTheSum) {
  LoadMap map;
  for (int64_t step = 1; step <= 1000; ++step) map.add(step, std::vector<double>{3, 1, 0, 4});
  map.add(1001, std::vector<double>{1, 1});
  EXPECT_LE(map.columns(), LoadMap::kMostColumns);
  EXPECT_EQ(map.width(), 16);
  for (size_t column = 0; column < map.columns(); ++column) EXPECT_EQ(map.load(column, 3), 2);
  EXPECT_EQ(map.share(0), 3.0 / 8);
  const std::string html = map.figure("load");
  tags_of_xml(html);
  EXPECT_THAT(html, HasSubstr("class=\"above\" fill-opacity=\"1.0\""));
  EXPECT_THAT(html, HasSubstr("expert 3"));
}

TEST(LoadMap, DrawsManyExperts) {
  LoadMap map;
  map.add(1, std::vector<double>(1024, 2));
  EXPECT_THAT(map.figure("load"), HasSubstr("the mean of 8 experts"));
  EXPECT_LT(map.figure("load").size(), 100000u);
}

TEST(XmlText, IsOfTheTextAlone) {
  EXPECT_EQ(xml_text("a<b>&\"c\"\n"), "a&lt;b&gt;&amp;&quot;c&quot;\n");
  EXPECT_EQ(xml_text("\xc3\xa4"), "\xc3\xa4");
  EXPECT_EQ(xml_text("\xc3 \x01\x7f\t"), "? ???");
}

}  // namespace
}  // namespace mixtune
