// Rows of windows, and the batches of a run on them, against Megatron-Core's (scripts/make_indexed_fixtures.py).
#include "data/window_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/json_value.h"
#include "data/indexed_testing.h"
#include "data/label.h"
#include "data/loader.h"
#include "data/test_batch.h"

namespace mixtune {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using Windows = std::vector<std::vector<int32_t>>;

std::vector<WindowSet> sets_of(const std::vector<std::string>& names, const std::vector<double>& weights = {},
                               const std::string& split = "1") {
  std::vector<WindowSet> sets;
  for (size_t i = 0; i < names.size(); ++i) {
    const auto data = std::make_shared<const WindowData>(kIndexedFixtures + "/" + names[i], kVocab);
    const SequenceRange range = split_sequences(split, data->reader().sequences(), "").train;
    sets.push_back({data, range, weights.empty() ? 0 : weights[i]});
  }
  return sets;
}

std::unique_ptr<WindowRows> rows_of(std::vector<WindowSet> sets, const WindowRowOptions& options) {
  return std::make_unique<WindowRows>(std::move(sets), options, "max_seq_length");
}

// The rows of a step with the target of the last token, `seq_length` tokens each; every token has a target.
Windows windows_in(const Step& step, int64_t seq_length) {
  Windows windows;
  for (const Batch& batch : step.micro_batches) {
    const auto ids = values(batch.ids), targets = values(batch.targets);
    EXPECT_EQ(batch.target_tokens(), batch.live_tokens);
    for (int64_t begin = 0; begin < batch.live_tokens; begin += seq_length) {
      const auto row = ids.subspan(begin, seq_length);
      windows.emplace_back(row.begin(), row.end());
      windows.back().push_back(targets[begin + seq_length - 1]);
      for (int64_t i = 0; i < seq_length; ++i) EXPECT_EQ(targets[begin + i], windows.back()[i + 1]);
    }
  }
  return windows;
}

struct MegatronRun {
  std::vector<WindowSet> sets;
  WindowRowOptions options;
  Windows tokens;
};

std::vector<MegatronRun> runs_of_megatron() {
  std::vector<MegatronRun> runs;
  for (const json& c : json::parse(TestFolder::read(kIndexedFixtures + "/runs.json"))) {
    const json& run = c.at("run");
    const auto weights = run[1].is_null() ? std::vector<double>() : run[1].get<std::vector<double>>();
    runs.push_back({sets_of(run[0], weights, run[2]),
                    {.seq_length = run[3], .samples = run[4].get<int64_t>(), .seed = run[5]},
                    c.at("tokens")});
  }
  EXPECT_GE(runs.size(), 9u);
  return runs;
}

TEST(WindowRows, TheBatchesOfARunAreMegatrons) {
  for (const MegatronRun& run : runs_of_megatron()) {
    Loader loader(rows_of(run.sets, run.options), 2, 2);
    const auto count = static_cast<int64_t>(run.tokens.size());
    ASSERT_EQ(loader.steps(), (count + 3) / 4);
    Windows seen;
    for (int64_t s = 0; s < loader.steps(); ++s)
      for (auto& window : windows_in(loader.load(s), run.options.seq_length)) seen.push_back(std::move(window));
    EXPECT_EQ(seen, run.tokens) << seen.size();
  }
}

TEST(WindowRows, RanksShareTheStepOfOne) {
  const MegatronRun run = runs_of_megatron()[4];
  Loader alone(rows_of(run.sets, run.options), 4, 1);
  std::vector<Loader> ranks;
  for (int rank = 0; rank < 2; ++rank)
    ranks.emplace_back(rows_of(run.sets, run.options), 2, 1, HostMemory::kPageable, Share{rank, 2});
  for (int64_t s = alone.steps(); s-- > 0;) {  // and in any order
    const Windows expected = windows_in(alone.load(s), run.options.seq_length);
    Windows seen;
    for (Loader& loader : ranks) {
      const Step& step = loader.load(s);
      EXPECT_EQ(step.target_tokens, alone.load(s).target_tokens);
      EXPECT_EQ(step.live_tokens, alone.load(s).live_tokens);
      EXPECT_EQ(step.documents, alone.load(s).documents);
      EXPECT_EQ(step.squared_lengths, alone.load(s).squared_lengths);
      EXPECT_EQ(step.epoch, alone.load(s).epoch);
      for (auto& window : windows_in(step, run.options.seq_length)) seen.push_back(std::move(window));
    }
    EXPECT_EQ(seen, expected) << "step " << s;
  }
}

// Expects for every row that counting without reading gives what reading gives. Returns all targets.
int64_t expect_counts(WindowRows& rows) {
  const auto length = static_cast<size_t>(rows.max_tokens());
  std::vector<int32_t> ids(length), targets(length), begins(static_cast<size_t>(rows.max_documents()));
  int64_t all = 0;
  for (int64_t row = 0; row < rows.rows(); ++row) {
    const RowCounts counted = rows.count(row),
                    read = rows.read(row, {.ids = ids, .targets = targets, .weights = {}, .begins = begins});
    EXPECT_EQ(counted.tokens, rows.max_tokens());
    EXPECT_EQ(read.tokens, counted.tokens) << row;
    EXPECT_EQ(read.targets, counted.targets) << row;
    EXPECT_EQ(counted.weight, static_cast<double>(counted.targets));
    EXPECT_EQ(read.weight, counted.weight);
    EXPECT_EQ(read.documents, counted.documents) << row;
    EXPECT_EQ(read.squared_lengths, counted.squared_lengths) << row;
    all += read.targets;
  }
  return all;
}

TEST(WindowRows, CountWhatTheyRead) {
  for (const int64_t seq_length : {1, 2, 5, 8, 40})
    for (const bool reset : {false, true})
      for (const bool eod : {false, true}) {
        const WindowRowOptions options{.seq_length = seq_length,
                                       .samples = 60,
                                       .seed = 5,
                                       .masking = {.reset_attention_mask = reset, .eod_mask_loss = eod}};
        const auto rows = rows_of(sets_of({"windows", "more"}, {1, 2}), options);
        const int64_t targets = expect_counts(*rows);
        EXPECT_EQ(targets < 60 * seq_length, eod);
      }
}

std::vector<WindowSet> masked_set(const TestFolder& folder) {
  IndexedWriter writer(folder.path("data"), kVocab, Existing::kReplaced);
  for (int32_t s = 0; s < 40; ++s) {
    Sequence ids, labels;
    for (int32_t i = 0; i <= s % 7; ++i) ids.push_back(100 * s + i);
    labels = ids;
    for (size_t i = 0; i + 1 < ids.size(); i += 2) labels[i + 1] = kIgnoreTarget;
    writer.append(ids, labels);
    writer.end_document();
  }
  writer.finish();
  const auto data = std::make_shared<const WindowData>(folder.path("data"), kVocab);
  return {{data, {0, 40}}};
}

TEST(WindowRows, CountsOfAMaskAreThoseOfItsTokens) {
  const TestFolder folder;
  const auto sets = masked_set(folder);
  ASSERT_TRUE(sets[0].data->reader().has_mask());
  for (const bool eod : {false, true}) {
    const auto rows = rows_of(sets, {.seq_length = 9, .samples = 50, .seed = 1, .masking = {.eod_mask_loss = eod}});
    const int64_t targets = expect_counts(*rows);
    EXPECT_GT(targets, 0);
    EXPECT_LT(targets, 50 * 9);
  }
}

TEST(WindowRows, DocumentsAreIsolatedWhereAsked) {
  const TestFolder folder;
  write_data_set(folder.path("data"), {{{1, 2, 3}}, {{4, 5}}, {{6, 7, 8, 9}}});
  const std::vector<WindowSet> sets = {{std::make_shared<const WindowData>(folder.path("data"), kVocab), {0, 3}}};
  const auto load = [&](const GptMasking& masking) {
    Loader loader(rows_of(sets, {.seq_length = 8, .shuffle = false, .masking = masking}), 1, 1);
    EXPECT_EQ(loader.steps(), 1);
    const Batch batch = loader.load(0).micro_batches[0];
    return std::vector<std::vector<int32_t>>{
        {values(batch.ids).begin(), values(batch.ids).begin() + batch.live_tokens},
        {values(batch.positions).begin(), values(batch.positions).begin() + batch.live_tokens},
        {values(batch.target_rows).begin(), values(batch.target_rows).end()},
        {values(batch.targets).begin(), values(batch.targets).end()},
        {values(batch.doc_offsets).begin(), values(batch.doc_offsets).end()}};
  };
  const std::vector<int32_t> ids = {1, 2, 3, 4, 5, 6, 7, 8}, rows = {0, 1, 2, 3, 4, 5, 6, 7};
  EXPECT_THAT(load({}), ElementsAre(ids, rows, rows, ElementsAre(2, 3, 4, 5, 6, 7, 8, 9), ElementsAre(0, 8)));
  EXPECT_THAT(load({.reset_attention_mask = true}),
              ElementsAre(ids, ElementsAre(0, 1, 2, 0, 1, 0, 1, 2), rows, ElementsAre(2, 3, 4, 5, 6, 7, 8, 9),
                          ElementsAre(0, 3, 5, 8)));
  EXPECT_THAT(load({.reset_attention_mask = true, .eod_mask_loss = true}),
              ElementsAre(ids, ElementsAre(0, 1, 2, 0, 1, 0, 1, 2), ElementsAre(0, 1, 3, 5, 6, 7),
                          ElementsAre(2, 3, 5, 7, 8, 9), ElementsAre(0, 3, 5, 8)));
}

TEST(WindowRows, AnEpochIsEveryWindowOnce) {
  const auto rows = rows_of(sets_of({"windows", "more"}), {.seq_length = 8, .shuffle = false});
  EXPECT_EQ(rows->rows(), (98 - 1) / 8 + (100 - 1) / 8);
  EXPECT_EQ(rows->epoch_rows(), rows->rows());
  EXPECT_EQ(rows->epochs_done(rows->rows()), 1);
  std::vector<int32_t> ids(8), targets(8), begins(1);
  std::map<int32_t, int> seen;
  for (int64_t row = 0; row < rows->rows(); ++row) {
    rows->read(row, {.ids = ids, .targets = targets, .weights = {}, .begins = begins});
    for (const int32_t id : ids) seen[id] += id != 2;
  }
  for (const auto& [id, times] : seen) EXPECT_LE(times, 1) << id;
  EXPECT_EQ(rows_of(sets_of({"windows"}), {.seq_length = 8, .epochs = 1.5})->rows(), 18);
  EXPECT_EQ(rows_of(sets_of({"windows", "more"}), {.seq_length = 8, .epochs = 4})->rows(), 4 * 24);
}

TEST(WindowRows, SayWhatCannotBeCut) {
  const auto error = [](std::vector<WindowSet> sets, const WindowRowOptions& options) {
    return user_error([&] { WindowRows(std::move(sets), options, "run.yaml:3: max_seq_length"); });
  };
  EXPECT_THAT(error(sets_of({"windows", "few"}), {.seq_length = 14}),
              HasSubstr("few has 14 tokens for it, and a window takes max_seq_length + 1, 15"));
  EXPECT_THAT(error(sets_of({"windows", "few"}, {1, 1}), {.seq_length = 200}),
              HasSubstr("no data set has 201 tokens, which a window takes"));
  EXPECT_EQ(error(sets_of({"windows", "few"}, {1, 1}), {.seq_length = 14, .samples = 5}), "");
  EXPECT_THAT(error(sets_of({"windows"}), {.seq_length = 8, .samples = int64_t{1} << 31}),
              HasSubstr("run.yaml:3: max_seq_length: 2^31 windows or more"));
  EXPECT_THAT(error(sets_of({"windows"}), {.seq_length = 8, .epochs = 1e12}), HasSubstr("2^31 windows or more"));
}

}  // namespace
}  // namespace mixtune
