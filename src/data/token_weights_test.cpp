// The weights of turns and of tokens, from records to documents and from file to file.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "data/data_cache.h"
#include "data/label.h"
#include "data/load_documents.h"
#include "data/preprocess.h"
#include "data/test_folder.h"

namespace mixtune {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr ChatTemplateName kApart = ChatTemplateName::kMistralV1, kTogether = ChatTemplateName::kVicuna;

class TokenWeights : public testing::Test {
 protected:
  MemoryDocuments load(const std::string& content, ChatTemplateName name = kApart, bool train_on_prompt = false) {
    const TextEncoder encoder{.tokenizer = tokenizer_.get(),
                              .chat_template = {.name = name, .variant = usual_variant(name)},
                              .train_on_prompt = train_on_prompt};
    return load_documents(as_dataset(std::vector{folder_.write("data.jsonl", content)}), settings_, encoder,
                          tokenizer_->vocab_size());
  }
  MemoryDocuments load_file(const std::string& path) {
    return load_documents(as_dataset(std::vector{path}), settings_, {}, tokenizer_->vocab_size());
  }

  // A conversation whose two answers have these further members.
  static std::string answers(const std::string& first, const std::string& second) {
    constexpr const char* kRecord =
        R"({{"messages": [{{"role": "user", "content": "Hi"}}, {{"role": "assistant", "content": "Hello there"{}}}, )"
        R"({{"role": "user", "content": "And?"}}, {{"role": "assistant", "content": "one two"{}}}]}})"
        "\n";
    return fmt::format(kRecord, first, second);
  }

  // The weights of the trained tokens after the first token.
  static std::vector<float> trained_weights(const Documents& documents, int64_t d = 0) {
    const Document document = read_document(documents, d);
    std::vector<float> found;
    for (size_t i = 1; i < document.ids.size(); ++i)
      if (document.labels[i] != kIgnoreTarget) found.push_back(document.weights.empty() ? 1 : document.weights[i]);
    return found;
  }

  TestFolder folder_;
  DataSettings settings_;
  const std::unique_ptr<Tokenizer> tokenizer_ = open_tokenizer(kTokenizerFixtures);
};

TEST_F(TokenWeights, ATurnsWeightIsThatOfEachOfItsTrainedTokens) {
  for (const ChatTemplateName name : {kApart, kTogether}) {
    const MemoryDocuments one = load(answers("", R"(, "train": false)"), name),
                          two = load(answers(R"(, "train": false)", ""), name);
    std::vector<float> expected(static_cast<size_t>(one.targets()), 0.5F);  // includes the mark that ends the answer
    expected.resize(expected.size() + static_cast<size_t>(two.targets()), 3);
    const MemoryDocuments documents = load(answers(R"(, "weight": 0.5)", R"(, "weight": 3)"), name);
    EXPECT_EQ(trained_weights(documents), expected);
    EXPECT_TRUE(documents.totals().weighted);
    EXPECT_EQ(read_document(documents, 0).ids, read_document(load(answers("", ""), name), 0).ids);
  }
}

TEST_F(TokenWeights, NoneButOneAndZeroAreNoWeights) {
  const MemoryDocuments plain = load(answers("", "")), ones = load(answers(R"(, "weight": 1)", R"(, "loss": 1.0)"));
  EXPECT_FALSE(ones.totals().weighted);
  EXPECT_TRUE(same_documents(ones, plain));
  EXPECT_EQ(ones.digest(), plain.digest());
  const MemoryDocuments untrained = load(answers(R"(, "train": false)", "")),
                        weightless = load(answers(R"(, "weight": 0)", ""));
  EXPECT_FALSE(weightless.totals().weighted);
  EXPECT_TRUE(same_documents(weightless, untrained));
  EXPECT_EQ(weightless.digest(), untrained.digest());
}

TEST_F(TokenWeights, TellDocumentsApart) {
  const MemoryDocuments one = load(answers("", "")), half = load(answers("", R"(, "weight": 0.5)")),
                        third = load(answers("", R"(, "weight": 0.3)"));
  EXPECT_FALSE(same_documents(one, half));
  EXPECT_FALSE(same_documents(half, third));
  EXPECT_NE(one.digest(), half.digest());
  EXPECT_NE(half.digest(), third.digest());
}

TEST_F(TokenWeights, PromptsThatAreTrainedWeighOne) {
  for (const ChatTemplateName name : {kApart, kTogether}) {
    const std::string content = answers(R"(, "weight": 2)", R"(, "weight": 2)");
    const MemoryDocuments answers_alone = load(content, name), all = load(content, name, true);
    const std::vector<float> weights = trained_weights(all);
    EXPECT_THAT(trained_weights(answers_alone), Each(2));
    EXPECT_EQ(std::ranges::count(weights, 2), answers_alone.targets());
    EXPECT_EQ(std::ranges::count(weights, 1), all.targets() - answers_alone.targets());
  }
}

TEST_F(TokenWeights, AdjacentAnswersOfDifferentWeightsStandApart) {
  const auto two = [&](const std::string& second) {
    return load(R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, )" +
                fmt::format(R"({{"role": "assistant", "content": "there"{}}}]}})", second) + "\n");
  };
  const auto ends = [&](const MemoryDocuments& documents) {
    return std::ranges::count(read_document(documents, 0).ids, tokenizer_->eos());
  };
  EXPECT_EQ(ends(two("")), 1);
  EXPECT_EQ(ends(two(R"(, "weight": 2)")), 2);
  const MemoryDocuments in_prompt =
      load(R"({"prompt": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a"}, )"
           R"({"role": "assistant", "content": "b", "weight": 2}, {"role": "user", "content": "And?"}], )"
           R"("completion": [{"role": "assistant", "content": "c"}]})"
           "\n");
  EXPECT_EQ(ends(in_prompt), 2);  // the prompt's weigh nothing
}

TEST_F(TokenWeights, TokensMayHaveEachTheirOwn) {
  const std::string record = R"({"input_ids": [1, 5, 6, 7, 8], "loss_mask": [1, 0.5, 0, 2, 1]})"
                             "\n";
  EXPECT_THAT(trained_weights(load(record)), ElementsAre(0.5, 2, 1));
  settings_.max_seq_length = 4;
  settings_.long_documents = LongDocuments::kSplit;
  const MemoryDocuments split = load(record);
  ASSERT_EQ(split.size(), 2);
  EXPECT_THAT(trained_weights(split, 0), ElementsAre(0.5, 2));
  EXPECT_THAT(trained_weights(split, 1), ElementsAre(1));  // 7, which stands first here, has none
  settings_.long_documents = LongDocuments::kTruncate;
  EXPECT_THAT(trained_weights(load(record)), ElementsAre(0.5, 2));
}

TEST_F(TokenWeights, ArePartOfWhatIsWrittenAndReadBack) {
  const MemoryDocuments documents =
      load(answers("", "") + answers(R"(, "weight": 0.1)", R"(, "weight": 7)") + answers(R"(, "train": false)", ""));
  write_tokenized(documents, folder_.path("out.jsonl"), false);
  EXPECT_TRUE(same_documents(load_file(folder_.path("out.jsonl")), documents));
  write_indexed(documents, folder_.path("out"), tokenizer_->vocab_size(), false);
  EXPECT_TRUE(std::filesystem::exists(folder_.path("out.weights")));
  const MemoryDocuments again = load_file(folder_.path("out"));
  EXPECT_TRUE(same_documents(again, documents));
  EXPECT_EQ(again.digest(), documents.digest());
}

TEST_F(TokenWeights, OneDocumentALineSaysThem) {
  MemoryDocuments documents;
  documents.append(std::vector{1, 5, 2}, std::vector{-100, 5, 2}, std::vector{0.0F, 0.5F, 1.0F});
  write_tokenized(documents, folder_.path("out.jsonl"), false);
  EXPECT_EQ(TestFolder::read(folder_.path("out.jsonl")),
            "{\"input_ids\":[1,5,2],\"labels\":[-100,5,2],\"loss_mask\":[0,0.5,1]}\n");
}

TEST_F(TokenWeights, AreKeptInTheCacheAndWhereThereIsNone) {
  const std::string content = answers("", "") + answers(R"(, "weight": 0.1)", "");
  const MemoryDocuments expected = load(content);
  int loads = 0;
  const DataSource source{.name = "data",
                          .load =
                              [&](DocumentSink& sink) {
                                ++loads;
                                for (int64_t d = 0; d < expected.size(); ++d) {
                                  const auto [ids, labels, weights] = read_document(expected, d);
                                  sink.append(ids, labels, weights);
                                }
                              },
                          .vocab_size = tokenizer_->vocab_size(),
                          .max_seq_length = settings_.max_seq_length};
  const auto check = [&](const Documents& documents) {
    EXPECT_TRUE(same_documents(documents, expected));
    EXPECT_EQ(documents.totals(), expected.totals());
    EXPECT_EQ(documents.digest(), expected.digest());
  };
  const std::string cache = folder_.path("cache");
  check(*cached_documents(cache, "key", source));
  check(*cached_documents(cache, "key", source));
  EXPECT_EQ(loads, 1);
  std::filesystem::resize_file(cache + "/key/data.weights", 30);
  check(*cached_documents(cache, "key", source));
  std::filesystem::remove(cache + "/key/data.weights");
  check(*cached_documents(cache, "key", source));
  EXPECT_EQ(loads, 3);
  check(*uncached_documents(source));
}

}  // namespace
}  // namespace mixtune
