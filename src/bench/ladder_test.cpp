#include "bench/ladder.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <fstream>

#include "base/json_value.h"
#include "base/temp_folder.h"
#include "base/test_xml.h"
#include "config/load.h"

namespace mixtune {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

StepBench small_step() {
  StepBench step = {.model = mixtral_8x7b(2), .options = {}};
  step.tokens = step.sequence_length = 1000;
  step.steps = 4;
  return step;
}

LadderBench ladder_of(const std::string& yaml) {
  return plan_ladder(small_step(), parse_config("device: cpu\n" + yaml, "run.yaml"));
}

// Two rungs of which one has figures, and a peer that takes twice its time.
LadderResult result_of(const LadderBench& bench) {
  LadderResult result = {
      .device = "CPU",
      .rows = {
          {.name = "loop, bf16", .skipped = "bf16 <needs> a GPU & more"},
          {.name = "grouped, fp32", .milliseconds = 20, .rounds = {30, 20, 10}, .peak_bytes = 3 << 20, .loss = 8.25},
          {.name = "a & b", .versions = "torch <2>", .milliseconds = 40}}};
  rate_rows(bench.step, result.rows);
  return result;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1)
    lines.push_back(text.substr(begin, end - begin));
  return lines;
}

TEST(Ladder, HasTheLoopThenGroupedThenEightBits) {
  const auto names = [](const LadderBench& bench) {
    std::vector<std::string> all;
    for (const Rung& rung : bench.rungs) all.push_back(rung.name);
    return all;
  };
  const LadderBench bench = ladder_of("fp8_scaling: tensor\n");
  EXPECT_THAT(names(bench), ElementsAre("loop, fp32", "grouped, fp32", "grouped, fp8", "grouped, mxfp8"));
  for (const Rung& rung : bench.rungs) EXPECT_FALSE(rung.refusal) << rung.name << ": " << rung.refusal->what();
  const auto recipe = [&](int rung) {
    return bench.rungs[rung].options.recipe;
  };
  EXPECT_EQ(recipe(0).experts, ExpertsImplementation::kLoop);
  EXPECT_EQ(recipe(1).experts, ExpertsImplementation::kGrouped);
  EXPECT_EQ(recipe(1).eight_bit, std::nullopt);
  EXPECT_EQ(recipe(2).eight_bit, EightBitScaling::kTensor);  // the key is for it alone
  EXPECT_EQ(recipe(3).eight_bit, EightBitScaling::kMx);
  EXPECT_THAT(names(ladder_of("precision: bf16\n")),
              ElementsAre("loop, bf16", "grouped, bf16", "grouped, fp8", "grouped, mxfp8"));
}

TEST(Ladder, KeepsWhyARungIsRefused) {
  const LadderBench bench = ladder_of("precision: bf16\n");
  ASSERT_TRUE(bench.rungs[0].refusal && bench.rungs[1].refusal);
  EXPECT_THAT(bench.rungs[0].refusal->what(), HasSubstr("run.yaml:2: precision: bf16 needs a GPU"));
  EXPECT_FALSE(bench.rungs[2].refusal);
  EXPECT_EQ(bench.step.options.recipe.eight_bit, EightBitScaling::kBlock);
}

TEST(Ladder, IsRefusedWhereEveryRungIs) {
  const auto refusal = [](const std::string& yaml) -> std::string {
    try {
      ladder_of(yaml);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(refusal("gradient_dtype: bf16\n"), HasSubstr("run.yaml:2: gradient_dtype: is for precision: bf16"));
  EXPECT_THAT(refusal("precision: fp8\n"), HasSubstr("run.yaml:2: precision: is that of the first two rungs"));
}

TEST(LadderRates, AreAgainstTheFirstRowThatHasFigures) {
  const LadderBench bench = ladder_of("");
  const std::vector<LadderRow> rows = result_of(bench).rows;
  EXPECT_EQ(rows[0].speed_up, 0);
  EXPECT_EQ(rows[1].speed_up, 1);
  EXPECT_EQ(rows[2].speed_up, 0.5);
  EXPECT_DOUBLE_EQ(rows[1].rates.tokens_per_second, 50000);
  // 6 (L (h (q + 2 kv) + q S + q h + 3 k h ffn) + h V), design.md, section 6
  const double layer = 4096.0 * (4096 + 2 * 1024) + 4096.0 * 1000 + 4096.0 * 4096 + 3.0 * 2 * 4096 * 14336;
  EXPECT_NEAR(rows[1].rates.tflops, 6 * (2 * layer + 4096.0 * 32000) * 50000 / 1e12, 1e-9);
}

TEST(LadderTable, HasARowForEach) {
  const LadderBench bench = ladder_of("");
  EXPECT_THAT(lines_of(print_table(bench, result_of(bench))),
              ElementsAre("CPU: step of 1 x 1000 tokens, documents of 1000, 2 layers; 3 rounds by turns, 4 steps each",
                          "  rung              median ms     tokens/s  model TFLOP/s  peak memory  speed-up",
                          "  loop, bf16     skipped: bf16 <needs> a GPU & more",
                          "  grouped, fp32         20.00       50,000          278.3      3.0 MiB      1.00",
                          "  a & b (peer)          40.00       25,000          139.2            -      0.50",
                          "  a & b: torch <2>"));
}

TEST(LadderJson, HasARowForEach) {
  const LadderBench bench = ladder_of("");
  const auto json = nlohmann::json::parse(print_json(bench, result_of(bench)));
  EXPECT_EQ(json["workload"]["tokens"], 1000);
  EXPECT_EQ(json["workload"]["model"]["intermediate_size"], 14336);
  ASSERT_EQ(json["rows"].size(), 3u);
  EXPECT_EQ(json["rows"][0],
            (nlohmann::json{{"name", "loop, bf16"}, {"peer", false}, {"skipped", "bf16 <needs> a GPU & more"}}));
  EXPECT_EQ(json["rows"][1]["rounds_milliseconds"], (nlohmann::json{30.0, 20.0, 10.0}));
  EXPECT_EQ(json["rows"][1]["peak_bytes"], 3 << 20);
  EXPECT_EQ(json["rows"][2]["versions"], "torch <2>");
  EXPECT_TRUE(json["rows"][2]["peak_bytes"].is_null());
}

TEST(LadderChart, IsWellFormedWithABarForEachRowThatHasFigures) {
  const LadderBench bench = ladder_of("");
  const std::string svg = print_svg(bench, result_of(bench));
  const std::vector<std::string> tags = tags_of_xml(svg);
  const auto bars = [&](const std::string& kind) {
    return std::ranges::count_if(tags, [&](const std::string& tag) { return tag.find(kind) != tag.npos; });
  };
  EXPECT_EQ(bars("class=\"bar"), 2);
  EXPECT_EQ(bars("class=\"bar peer\""), 1);
  EXPECT_EQ(bars("width=\"310\""), 1);  // the fastest
  EXPECT_EQ(bars("width=\"155\""), 1);
  EXPECT_THAT(svg, HasSubstr("prefers-color-scheme: dark"));
  EXPECT_THAT(svg, HasSubstr("<title>bf16 &lt;needs&gt; a GPU &amp; more</title>"));
  EXPECT_THAT(svg, HasSubstr("25,000 tokens/s, 0.50x"));
  for (const char* none : {"<script", "href", "url(", "@import"}) EXPECT_THAT(svg, Not(HasSubstr(none)));
}

TEST(LadderChart, IsToldFromBrokenXml) {
  for (const char* broken : {"", "<a>", "<a></b>", "<a/><b/>", "<a>&</a>", "<a b=c/>", "x<a/>", "<a>\1</a>"})
    EXPECT_THROW(tags_of_xml(broken), std::runtime_error) << broken;
}

class LadderPeers : public testing::Test {
 protected:
  // What a ladder wrote whose rows are all peers.
  nlohmann::json peers() const {
    const LadderResult result = {
        .device = "CPU",
        .rows = {{.name = "eager", .versions = "torch 2.11", .milliseconds = 7.5, .peak_bytes = 9},
                 {.name = "grouped_mm", .skipped = "no\nroom", .versions = "torch 2.11"}}};
    return nlohmann::json::parse(print_json(bench_, result));
  }

  std::vector<LadderRow> read(const std::string& text) const {
    std::ofstream(folder_ / "peers.json") << text;
    return read_ladder_peers(folder_ / "peers.json", bench_);
  }

  std::string refusal(const std::string& text) const {
    try {
      read(text);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  }

  // With another value at a place.
  std::string refusal_with(const std::string& place, const nlohmann::json& value) const {
    nlohmann::json changed = peers();
    changed[nlohmann::json::json_pointer(place)] = value;
    return refusal(changed.dump());
  }

  TempFolder folder_;
  LadderBench bench_ = ladder_of("");
};

TEST_F(LadderPeers, AreReadFromWhatALadderWrites) {
  const std::vector<LadderRow> rows = read(peers().dump());
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].name, "eager");
  EXPECT_EQ(rows[0].versions, "torch 2.11");
  EXPECT_EQ(rows[0].milliseconds, 7.5);
  EXPECT_EQ(rows[0].peak_bytes, 9u);
  EXPECT_EQ(rows[1].skipped, "no\\x0aroom");
}

TEST_F(LadderPeers, OfOtherWorkAreRefused) {
  EXPECT_THAT(refusal_with("/workload/tokens", 512),
              HasSubstr("peers.json: workload.tokens: is 512, and here it is 1000; measure the peers on this machine"));
  EXPECT_THAT(refusal_with("/workload/model/hidden_size", nullptr), HasSubstr("workload.model.hidden_size: is null"));
  EXPECT_THAT(refusal_with("/workload/model", 3), HasSubstr("workload.model: is no object"));
  EXPECT_THAT(refusal_with("/workload/device", "NVIDIA H200"), HasSubstr("workload.device: is \"NVIDIA H200\""));
  EXPECT_THAT(refusal_with("/workload", "x"), HasSubstr("workload: is no object"));
}

TEST_F(LadderPeers, ThatAreMalformedAreRefused) {
  EXPECT_THAT(refusal("{"), HasSubstr("peers.json"));
  EXPECT_THAT(refusal("[]"), HasSubstr("peers.json"));
  EXPECT_THAT(refusal_with("/rows", nlohmann::json::array()), HasSubstr("rows: is no list of 1 to 16 rows"));
  EXPECT_THAT(refusal_with("/rows", nlohmann::json::array_t(17)), HasSubstr("rows: is no list"));
  EXPECT_THAT(refusal_with("/rows/1", 5), HasSubstr("rows[1]: is no object"));
  for (const nlohmann::json& name : {nlohmann::json(), nlohmann::json(""), nlohmann::json("a\nb"), nlohmann::json("é"),
                                     nlohmann::json(std::string(33, 'a')), nlohmann::json(5)})
    EXPECT_THAT(refusal_with("/rows/0/name", name), HasSubstr("rows[0].name: is no text of 1 to 32 ASCII")) << name;
  EXPECT_THAT(refusal_with("/rows/0/versions", ""), HasSubstr("rows[0].versions: is no text"));
  for (const nlohmann::json& time :
       {nlohmann::json(), nlohmann::json(0), nlohmann::json(-1), nlohmann::json("5"), nlohmann::json(1e300)})
    EXPECT_THAT(refusal_with("/rows/0/milliseconds", time), HasSubstr("rows[0].milliseconds: is no number")) << time;
  EXPECT_THAT(refusal_with("/rows/0/peak_bytes", -5), HasSubstr("rows[0].peak_bytes: is no number of bytes"));
  EXPECT_THAT(refusal_with("/rows/1/skipped", 5), HasSubstr("rows[1].skipped: is no text"));
}

TEST(LadderChart, TellsValuesFromAttributes) {
  const std::vector<XmlAttribute> found = attributes_of_tag("<a b=\"onload=\" c-d=\"\" e=\" x=y \"/>");
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].name + "|" + found[0].value, "b|onload=");
  EXPECT_EQ(found[1].name + "|" + found[1].value, "c-d|");
  EXPECT_EQ(found[2].name + "|" + found[2].value, "e| x=y ");
  EXPECT_TRUE(attributes_of_tag("<br/>").empty());
}

}  // namespace
}  // namespace mixtune
