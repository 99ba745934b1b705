// `resize_vocabulary`: tokens that a user added get rows, and the saved model is one like any other.
#include <fmt/format.h>

#include <algorithm>

#include "base/test_paths.h"
#include "rank_runs.h"
#include "stored_weights.h"

namespace mixtune {
namespace {

using nlohmann::json;

// A model with 4,096 rows, whose tokeniser has two tokens more.
class ResizeVocabulary : public RankRuns {
 protected:
  void SetUp() override {
    RankRuns::SetUp();
    add_tokens("model");
  }

  void add_tokens(const std::string& folder) const {
    write(path(folder + "/added_tokens.json"), R"({"<|im_start|>": 4096, "<|im_end|>": 4097})");
    write(path(folder + "/special_tokens_map.json"),
          R"({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})");
  }

  static Args resized(Args more) {
    more.push_back("--resize_vocabulary");
    return more;
  }
};

void expect_added_means(const std::vector<float>& before, const std::vector<float>& after, size_t added) {
  ASSERT_EQ(after.size(), before.size() + added * kHidden);
  EXPECT_EQ(std::memcmp(after.data(), before.data(), before.size() * sizeof(float)), 0);
  for (size_t i = before.size(); i < after.size(); ++i) {
    double sum = 0;
    for (size_t at = i % kHidden; at < before.size(); at += kHidden) sum += double{before[at]};
    ASSERT_EQ(after[i], static_cast<float>(sum / static_cast<double>(before.size() / kHidden))) << i;
  }
}

// A learning rate of 0 leaves the rows as they were loaded.
TEST_F(ResizeVocabulary, NewRowsAreTheMeanOfTheOldOnEveryLayout) {
  Args four = four_ranks(1);
  four.push_back("--zero_stage=0");
  const std::map<std::string, Args> layouts = {{"one", {"--max_steps=1"}},
                                               {"two", {"--nproc=2", "--max_steps=1"}},
                                               {"plain", {"--nproc=2", "--max_steps=1", "--zero_stage=0"}},
                                               {"experts", four_ranks(1)},
                                               {"plain_experts", four}};
  const auto before = weights_in(path("model"));
  for (auto [out, args] : layouts) {
    args = train(out, resized(args));
    std::ranges::replace(args, "--learning_rate=1e-3", "--learning_rate=0");
    const Outcome outcome = done(args);
    EXPECT_EQ(count_of(outcome.err, "vocabulary: 4096 -> 4098, new rows are the mean of the old\n"), 1) << outcome.err;
    const auto after = weights_in(path(out + "/checkpoint-1"));
    EXPECT_EQ(after.size(), before.size());
    for (const auto& [name, stored] : before)
      expect_added_means(stored.values, after.at(name).values,
                         name == "model.embed_tokens.weight" || name == "lm_head.weight" ? 2 : 0);
  }
}

TEST_F(ResizeVocabulary, TheRestOfTheConfigStaysAsItIs) {
  done(train("out", resized({"--max_steps=1"})));
  std::string expected = read(path("model/config.json"));
  const size_t at = expected.find("4096");
  ASSERT_NE(at, expected.npos);
  EXPECT_EQ(read(path("out/checkpoint-1/config.json")), expected.replace(at, 4, "4098"));
}

TEST_F(ResizeVocabulary, ARunGoesOnFromItsCheckpoint) {
  done(train("out", resized({"--max_steps=2", "--chat_template=chatml"})));
  for (const char* name : {"added_tokens.json", "special_tokens_map.json", "tokenizer.model"})
    EXPECT_EQ(read(path(fmt::format("out/checkpoint-2/{}", name))), read(path(fmt::format("model/{}", name))));
  for (const Args& more : {Args{}, Args{"--nproc=2"}}) {
    Args args = {"train",           "--model_name_or_path=out", "--train_file=data.jsonl", "--output_dir=next",
                 "--max_steps=1",   "--max_seq_length=64",      "--overwrite_output_dir",  "--resize_vocabulary",
                 "--data_cache=off"};
    args.insert(args.end(), more.begin(), more.end());
    const Outcome outcome = done(args);
    expect_part(outcome.err, "vocabulary: 4098, nothing to resize: the tokeniser has 4098 tokens");
    expect_part(outcome.err, "chat template: chatml");
    EXPECT_EQ(config_of("next/checkpoint-1")["vocab_size"], 4098);
  }
  done({"evaluate", "next", "--file=data.jsonl", "--max_seq_length=64"});
  expect_part(done({"generate", "out", "--chat", "--prompt=Define: otter", "--max-new-tokens=3"}).err, "chatml");
  done({"generate", "out", "--ids=1,4096,4097", "--max-new-tokens=3"});
}

TEST_F(ResizeVocabulary, ACheckpointHasTheTokeniserThatIsNamed) {
  fs::create_directory(path("tokens"));
  fs::copy_file(path("model/tokenizer.model"), path("tokens/tokenizer.model"));
  fs::remove(path("model/added_tokens.json"));
  fs::remove(path("model/special_tokens_map.json"));
  add_tokens("tokens");
  for (const std::string named : {"tokens", "tokens/tokenizer.model"}) {
    done(train("out", resized({"--max_steps=1", "--tokenizer_name_or_path=" + named, "--chat_template=chatml",
                               "--overwrite_output_dir"})));
    EXPECT_EQ(read(path("out/checkpoint-1/added_tokens.json")), read(path("tokens/added_tokens.json")));
    done({"generate", "out", "--prompt=Define", "--max-new-tokens=2"});
  }
}

TEST_F(ResizeVocabulary, CountsForTokenIdsToo) {
  write(path("data.jsonl"), "{\"input_ids\": [1, 4097, 7, 2]}\n{\"input_ids\": [1, 9, 4096, 2]}\n");
  const Outcome refused = run(train("out", {"--max_steps=1"}));
  EXPECT_EQ(refused.code, 2);
  expect_part(refused.err, "input_ids[1] is 4097, outside the model's vocabulary of 4096");
  done(train("out", resized({"--max_steps=1"})));
  EXPECT_EQ(config_of("out/checkpoint-1")["vocab_size"], 4098);
}

TEST_F(ResizeVocabulary, OtherCommandsNameTheTokenAndTheMend) {
  const Args parts = {
      "its token '<|im_start|>' has the id 4096, and the model's vocab_size is 4096 (tokens without a row: 2)",
      "train with resize_vocabulary: true"};
  const std::vector<Args> commands = {
      {"evaluate", "model", "--file=data.jsonl", "--max_seq_length=64"},
      {"generate", "model", "--prompt=Define"},
      {"preprocess", "--train_file=data.jsonl", "--model_name_or_path=model", "--output=out.jsonl"},
      train("out", {"--max_steps=1"}),
      train("out", {"--max_steps=1", "--nproc=2"}),
      train("out", {"--dry-run"})};
  for (const Args& command : commands) {
    const Outcome outcome = run(command);
    EXPECT_EQ(outcome.code, 2) << command[0];
    expect_one_error(outcome, parts);
  }
  EXPECT_FALSE(fs::exists(path("out")));
}

TEST_F(ResizeVocabulary, IsKnownToWhatPlansARun) {
  const std::string line = "vocabulary: 4096 -> 4098";
  for (const Args& command :
       {train("out", resized({"--dry-run"})),
        Args{"estimate", "--model_name_or_path=model", "--resize_vocabulary", "--max_seq_length=64"},
        Args{"preprocess", "--train_file=data.jsonl", "--model_name_or_path=model", "--resize_vocabulary",
             "--output=out.jsonl"}}) {
    const Outcome outcome = done(command);
    EXPECT_EQ(count_of(outcome.err, line), 1) << outcome.err;
  }
}

// A case: a tokeniser, a config.json and weights, and the outcome.
struct Sizes {
  int tokens, config, rows;
  bool resize;
  int saved;           // vocab_size; 0: refused
  std::string stated;  // on standard error
};

void PrintTo(const Sizes& sizes, std::ostream* out) {
  *out << fmt::format("{} tokens, vocab_size {}, {} rows, {}", sizes.tokens, sizes.config, sizes.rows, sizes.resize);
}

class VocabularySizes : public ResizeVocabulary, public testing::WithParamInterface<Sizes> {
 protected:
  static std::string with_size(std::string config, int size) {
    const std::string key = "\"vocab_size\": ";
    const size_t at = config.find(key) + key.size();
    return config.replace(at, config.find_first_of(",}\n", at) - at, std::to_string(size));
  }

  void make(const Sizes& sizes) const {
    write(path("shape.json"), with_size(read(path("model/config.json")), sizes.rows));
    fs::remove_all(path("model"));
    done({"init", "shape.json", "model", "--tokenizer", source_path("examples/quickstart")});
    write(path("model/config.json"), with_size(read(path("model/config.json")), sizes.config));
    if (sizes.tokens > 4096) add_tokens("model");
  }
};

TEST_P(VocabularySizes, FitOrAreRefused) {
  const Sizes& sizes = GetParam();
  make(sizes);
  Args more = {"--max_steps=1", fmt::format("--resize_vocabulary={}", sizes.resize)};
  const Outcome outcome = run(train("out", more));
  EXPECT_EQ(outcome.code, sizes.saved > 0 ? 0 : 2) << outcome.err;
  expect_part(outcome.err, sizes.stated);
  EXPECT_EQ(count_of(outcome.err, "mixtune: vocabulary: ") > 0, sizes.resize) << outcome.err;
  EXPECT_EQ(fs::exists(path("out")), sizes.saved > 0);
  if (sizes.saved == 0) return;
  EXPECT_EQ(config_of("out/checkpoint-1")["vocab_size"], sizes.saved);
  EXPECT_EQ(weights_in(path("out/checkpoint-1")).at("lm_head.weight").values.size(), sizes.saved * kHidden);
}

constexpr const char *kNoRow = "'<|im_start|>' has the id 4096", *kEnough = "nothing to resize",
                     *kMore = "has shape [4100, 16], but config.json asks for [4096, 16]",
                     *kFewer = "has shape [4096, 16], but config.json asks for [4100, 16]";

const std::vector<Sizes> kSizes = {
    {4096, 4096, 4096, false, 4096, ""},  {4096, 4096, 4096, true, 4096, kEnough},
    {4096, 4100, 4100, false, 4100, ""},  {4096, 4100, 4100, true, 4100, kEnough},
    {4098, 4100, 4100, false, 4100, ""},  {4098, 4100, 4100, true, 4100, kEnough},
    {4098, 4096, 4096, false, 0, kNoRow}, {4098, 4096, 4096, true, 4098, "vocabulary: 4096 -> 4098"},
    {4098, 4096, 4100, false, 0, kMore},  {4098, 4096, 4100, true, 0, kMore},
    {4096, 4096, 4100, false, 0, kMore},  {4096, 4096, 4100, true, 0, kMore},
    {4098, 4100, 4096, false, 0, kFewer}, {4098, 4100, 4096, true, 0, kFewer},
    {4096, 4100, 4096, false, 0, kFewer}, {4096, 4100, 4096, true, 0, kFewer},
};

INSTANTIATE_TEST_SUITE_P(Combinations, VocabularySizes, testing::ValuesIn(kSizes));

}  // namespace
}  // namespace mixtune
