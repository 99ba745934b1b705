#include "data/preprocess.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/load_documents.h"
#include "data/test_folder.h"

namespace mixtune {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr const char* kConversations =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"Hello there\"}]}\n"
    "{\"messages\":[{\"role\":\"user\",\"content\":\"\xF0\x9F\xA4\x97\"},{\"role\":\"assistant\",\"content\":\"\\n\"}]}"
    "\n";

class PreprocessTest : public testing::Test {
 protected:
  MemoryDocuments load(const std::string& path) {
    const std::vector<std::string> files = {path};
    return load_documents(as_dataset(files), settings_, {.tokenizer = tokenizer_.get()}, tokenizer_->vocab_size());
  }

  std::string samples(const Documents& documents, int64_t count, const Tokenizer* tokenizer) {
    const std::string path = folder_.path("samples");
    std::FILE* file = std::fopen(path.c_str(), "w");
    print_samples(documents, tokenizer, count, file);
    std::fclose(file);
    return TestFolder::read(path);
  }

  int files_in_folder() {
    const std::filesystem::directory_iterator entries(folder_.path());
    return static_cast<int>(std::distance(begin(entries), end(entries)));
  }

  TestFolder folder_;
  DataSettings settings_;
  const std::unique_ptr<Tokenizer> tokenizer_ = open_tokenizer(kTokenizerFixtures);
};

TEST_F(PreprocessTest, WhatIsWrittenReadsBackTheSame) {
  settings_.max_seq_length = 12;
  const std::string text = folder_.write("t.jsonl", "{\"text\":\"" + std::string(300, 'z') + " one two three\"}\n");
  const std::string chat = folder_.write("c.jsonl", kConversations);
  const std::vector<std::string> files = {text, chat};
  const MemoryDocuments documents =
      load_documents(as_dataset(files), settings_, {.tokenizer = tokenizer_.get()}, tokenizer_->vocab_size());
  ASSERT_GT(documents.size(), 5);
  write_tokenized(documents, folder_.path("out.jsonl"), false);
  EXPECT_TRUE(same_documents(load(folder_.path("out.jsonl")), documents));
}

TEST_F(PreprocessTest, WritesOneObjectALine) {
  MemoryDocuments documents;
  documents.append(std::vector{1, 5, 2}, std::vector{-100, 5, 2});
  documents.append(std::vector{1, 6}, std::vector{1, 6});
  write_tokenized(documents, folder_.path("out.jsonl"), false);
  EXPECT_EQ(TestFolder::read(folder_.path("out.jsonl")),
            "{\"input_ids\":[1,5,2],\"labels\":[-100,5,2]}\n{\"input_ids\":[1,6],\"labels\":[1,6]}\n");
  EXPECT_EQ(files_in_folder(), 1);
}

TEST_F(PreprocessTest, MarksPiecesAndKeepsThePlaceOfRecordsWithoutADocument) {
  MemoryDocuments documents;
  documents.append(std::vector{1}, std::vector{1});
  documents.append(std::vector{1, 6}, std::vector{1, 6});
  documents.append_piece(std::vector{6, 7}, std::vector{6, 7});
  documents.append(std::vector{1}, std::vector{1});
  write_tokenized(documents, folder_.path("out.jsonl"), false);
  EXPECT_EQ(TestFolder::read(folder_.path("out.jsonl")),
            "{\"input_ids\":[],\"labels\":[]}\n{\"input_ids\":[1,6],\"labels\":[1,6]}\n"
            "{\"input_ids\":[6,7],\"labels\":[6,7],\"continues_record\":true}\n{\"input_ids\":[],\"labels\":[]}\n");
  EXPECT_TRUE(same_documents(load(folder_.path("out.jsonl")), documents));
}

TEST_F(PreprocessTest, IndexedDataReadsBackTheSame) {
  settings_.max_seq_length = 12;
  const std::string text = folder_.write("t.jsonl", "{\"text\":\"" + std::string(300, 'z') + " one two three\"}\n");
  const std::string chat = folder_.write("c.jsonl", kConversations);
  const std::string nothing =
      folder_.write("n.jsonl", "{\"input_ids\":[5]}\n{\"input_ids\":[5,6]}\n{\"input_ids\":[]}\n");
  for (const std::vector<std::string>& files : {std::vector{text}, {chat, text}, {nothing}, {nothing, chat, nothing}}) {
    const MemoryDocuments documents =
        load_documents(as_dataset(files), settings_, {.tokenizer = tokenizer_.get()}, tokenizer_->vocab_size());
    write_indexed(documents, folder_.path("out"), tokenizer_->vocab_size(), true);
    EXPECT_TRUE(same_documents(load(folder_.path("out")), documents));
    EXPECT_EQ(std::filesystem::exists(folder_.path("out.mask")),
              files != std::vector{text} && files != std::vector{nothing});
  }
  EXPECT_THAT(user_error([&] { write_indexed(MemoryDocuments(), folder_.path("out"), 9, false); }),
              HasSubstr("exists already"));
}

TEST_F(PreprocessTest, IndexedDataIsFitted) {
  MemoryDocuments documents;
  documents.append(std::vector{1, 2, 3, 4, 5, 6}, std::vector{1, 2, 3, 4, 5, 6});
  write_indexed(documents, folder_.path("text"), 9, false);
  documents.append(std::vector{1, 2, 3}, std::vector{1, -100, 3});
  write_indexed(documents, folder_.path("chat"), 9, false);
  settings_.max_seq_length = 4;
  const MemoryDocuments split = load(folder_.path("text.bin")), cut = load(folder_.path("chat.idx"));
  ASSERT_EQ(split.size(), 2);
  EXPECT_THAT(read_document(split, 1).ids, testing::ElementsAre(4, 5, 6));
  EXPECT_EQ(split.records(), 1);
  ASSERT_EQ(cut.size(), 2);
  EXPECT_THAT(read_document(cut, 0).ids, testing::ElementsAre(1, 2, 3, 4));
  settings_.long_documents = LongDocuments::kError;
  EXPECT_THAT(user_error([&] { load(folder_.path("text")); }), HasSubstr("text, sequence 0: the document of 6 tokens"));
  settings_.dataset_format = DatasetFormat::kMessages;
  EXPECT_THAT(user_error([&] { load(folder_.path("text")); }), HasSubstr("is indexed data, token ids already"));
}

TEST_F(PreprocessTest, IndexedDataNeedsNoTokenizer) {
  MemoryDocuments documents;
  documents.append(std::vector{1, 6}, std::vector{1, 6});
  write_indexed(documents, folder_.path("out"), 9, false);
  const std::vector<std::string> indexed = {folder_.path("out")};
  EXPECT_FALSE(needs_tokenizer(as_dataset(indexed), DatasetFormat::kAuto));
  EXPECT_THAT(user_error([&] { load_documents(as_dataset(indexed), settings_, {}, 6); }),
              HasSubstr("token 1 is 6, outside"));
}

TEST_F(PreprocessTest, OverwritesOnlyWhenTold) {
  MemoryDocuments documents;
  documents.append(std::vector{1, 6}, std::vector{1, 6});
  const std::string path = folder_.write("out.jsonl", "precious");
  EXPECT_THAT(user_error([&] { write_tokenized(documents, path, false); }), HasSubstr("exists already"));
  EXPECT_EQ(TestFolder::read(path), "precious");
  write_tokenized(documents, path, true);
  EXPECT_THAT(TestFolder::read(path), HasSubstr("input_ids"));
  EXPECT_EQ(files_in_folder(), 1);
}

TEST_F(PreprocessTest, SamplesShowPieceLabelAndPosition) {
  const MemoryDocuments documents = load(folder_.write("c.jsonl", kConversations));
  const std::string text = samples(documents, 1, tokenizer_.get());
  EXPECT_THAT(text, HasSubstr("document 1 of 2: "));
  EXPECT_THAT(text, Not(HasSubstr("document 2")));
  EXPECT_THAT(text, HasSubstr("\n       0        1     -100  <s>\n"));
  EXPECT_THAT(text, HasSubstr("\n       1      733     -100  \xE2\x96\x81[\n"));
  EXPECT_THAT(text, HasSubstr("    22557    22557  \xE2\x96\x81Hello\n"));
  EXPECT_THAT(samples(documents, 9, nullptr), HasSubstr("document 2 of 2"));
}

}  // namespace
}  // namespace mixtune
