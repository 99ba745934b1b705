// Splits, windows and samples, against Megatron-Core's (scripts/make_indexed_fixtures.py).
#include "data/gpt_windows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json_value.h"
#include "data/batch.h"
#include "data/gpt_sample.h"
#include "data/gpt_split.h"
#include "data/indexed_testing.h"
#include "data/label.h"
#include "data/numpy_rules.h"

namespace mixtune {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

json window_fixture(const std::string& name) {
  return json::parse(TestFolder::read(kIndexedFixtures + "/" + name));
}

std::vector<int32_t> lengths_of(const IndexedReader& reader) {
  std::vector<int32_t> lengths(reader.sequences());
  reader.lengths(0, lengths);
  return lengths;
}

TEST(NumpyRandomState, ShufflesAsNumpyDoes) {
  const json shuffles = window_fixture("windows.json").at("shuffles");
  for (const json& shuffle : shuffles) {
    const auto shuffled = shuffle.at("values").get<std::vector<int64_t>>();
    std::vector<int64_t> values(shuffled.size());
    std::iota(values.begin(), values.end(), 0);
    NumpyRandomState(shuffle.at("seed").get<uint32_t>()).shuffle(std::span(values));
    EXPECT_EQ(values, shuffled) << shuffle.at("seed");
  }
}

TEST(GptSplit, IsMegatrons) {
  const json cases = window_fixture("splits.json");
  ASSERT_GE(cases.size(), 100u);
  for (const json& c : cases) {
    const auto range = [&](size_t part) {
      const json& ends = c.at("ranges").at(part);
      return ends.is_null() ? SequenceRange{} : SequenceRange{ends[0], ends[1]};
    };
    const GptSplit split = split_sequences(c.at("split").get<std::string>(), c.at("sequences"), "");
    EXPECT_EQ(split.train, range(0)) << c;
    EXPECT_EQ(split.validation, range(1)) << c;
    EXPECT_EQ(split.test, range(2)) << c;
  }
}

TEST(GptSplit, RefusesWhatIsNone) {
  for (const std::string split : {"", ",", "1,", "1,2,3,4", "-1,2", "0", "0,0,0", "a", "1;2", "1 2", "nan", "inf",
                                  "1e2", "0x9", "99%,1", "1,2\n"})
    EXPECT_THAT(user_error([&] { split_sequences(split, 10, "--split"); }), HasSubstr("--split: '")) << split;
}

TEST(GptWindows, AreMegatronsInItsOrder) {
  const IndexedReader reader(kIndexedFixtures + "/windows", kVocab);
  const std::vector<int32_t> lengths = lengths_of(reader);
  const json cases = window_fixture("windows.json").at("windows");
  ASSERT_GE(cases.size(), 15u);
  for (const json& c : cases) {
    const json& asked = c.at("case");
    GptWindowOptions options{.seq_length = asked[2], .seed = asked[4]};
    if (!asked[3].is_null()) options.samples = asked[3].get<int64_t>();
    const GptWindows windows(lengths, {asked[0], asked[1]}, options, "");
    const auto tokens = c.at("tokens").get<std::vector<std::vector<int32_t>>>();
    ASSERT_EQ(windows.size(), static_cast<int64_t>(tokens.size())) << asked;
    std::vector<WindowPart> parts;
    for (int64_t i = 0; i < windows.size(); ++i) {
      std::vector<int32_t> window;
      windows.window(i, parts);
      for (const auto& [sequence, begin, count] : parts) {
        ASSERT_GT(count, 0);
        window.resize(window.size() + count);
        reader.read(sequence, begin, std::span(window).last(count), {});
      }
      ASSERT_EQ(window, tokens[i]) << asked << ", window " << i;
    }
  }
}

TEST(GptWindows, RefuseWhatCannotBeCut) {
  const std::vector<int32_t> lengths = {0, 0, 5};
  const auto cut = [&](SequenceRange range, int64_t samples) {
    return user_error([&] { GptWindows(lengths, range, {.seq_length = 4, .samples = samples}, "data"); });
  };
  EXPECT_THAT(cut({0, 2}, 1), HasSubstr("data: 2 sequences without a token"));
  EXPECT_THAT(cut({1, 1}, 1), HasSubstr("data: 0 sequences without a token"));
  EXPECT_THAT(cut({0, 3}, int64_t{1} << 31), HasSubstr("2^31 windows or more"));
  EXPECT_THAT(cut({0, 3}, (int64_t{1} << 31) - 1), HasSubstr("2^31 sequences in all epochs or more"));
}

std::vector<int64_t> positions(const GptSample& sample) {
  std::vector<int64_t> positions(sample.ids.size());
  for (size_t d = 0; d < sample.begins.size(); ++d) {
    const int64_t end = d + 1 < sample.begins.size() ? sample.begins[d + 1] : static_cast<int64_t>(positions.size());
    for (int64_t i = sample.begins[d]; i < end; ++i) positions[i] = i - sample.begins[d];
  }
  return positions;
}

TEST(GptSample, HasMegatronsTargetsAndPositions) {
  const IndexedReader reader(kIndexedFixtures + "/windows", kVocab);
  const std::vector<int32_t> lengths = lengths_of(reader);
  const GptWindows windows(lengths, {0, 12}, {.seq_length = 7, .samples = 40, .seed = 5}, "");
  const json cases = window_fixture("windows.json").at("samples");
  ASSERT_EQ(cases.size(), 4u);
  for (const json& c : cases) {
    const GptMasking masking{c.at("masking")[0], c.at("masking")[1], c.at("masking")[2]};
    ASSERT_EQ(windows.size(), static_cast<int64_t>(c.at("samples").size()));
    std::vector<WindowPart> parts;
    GptSample sample;
    for (int64_t i = 0; i < windows.size(); ++i) {
      const json& expected = c.at("samples")[i];
      auto targets = expected.at("labels").get<std::vector<int32_t>>();
      for (size_t t = 0; t < targets.size(); ++t)
        if (expected.at("loss_mask")[t] == 0) targets[t] = kIgnoreTarget;
      windows.window(i, parts);
      read_sample(reader, parts, masking, sample);
      EXPECT_EQ(sample.ids, expected.at("tokens").get<std::vector<int32_t>>());
      EXPECT_EQ(sample.targets, targets) << c.at("masking") << ", sample " << i;
      EXPECT_EQ(positions(sample), expected.at("position_ids").get<std::vector<int64_t>>()) << c.at("masking");
    }
  }
}

TEST(GptSample, HonoursTheMask) {
  const TestFolder folder;
  {
    IndexedWriter writer(folder.path("data"), kVocab, Existing::kRefused);
    writer.append(Sequence{1, 2, 3}, Sequence{1, kIgnoreTarget, 3});
    writer.append(Sequence{4, 5, 6}, Sequence{4, 5, kIgnoreTarget});
    writer.end_document();
    writer.finish();
  }
  GptSample sample;
  const std::vector<WindowPart> parts = {{0, 0, 3}, {1, 0, 3}};
  read_sample(IndexedReader(folder.path("data"), kVocab), parts, {.reset_attention_mask = true}, sample);
  EXPECT_THAT(sample.ids, ElementsAre(1, 2, 3, 4, 5));
  EXPECT_THAT(sample.targets, ElementsAre(kIgnoreTarget, 3, 4, 5, kIgnoreTarget));
  EXPECT_THAT(sample.begins, ElementsAre(0, 3));
}

TEST(GptSample, RefusesPositionsThatClash) {
  EXPECT_THAT(user_error([] { check_masking({.reset_position_ids = true}, "run.yaml:3"); }),
              HasSubstr("run.yaml:3: reset_position_ids without reset_attention_mask"));
  check_masking({.reset_attention_mask = true}, "");
  check_masking({.reset_position_ids = true, .reset_attention_mask = true, .eod_mask_loss = true}, "");
}

}  // namespace
}  // namespace mixtune
