#include "data/data_key.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <set>
#include <vector>

#include "base/content_hash.h"
#include "data/test_folder.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;

class DataKeyTest : public testing::Test {
 protected:
  DataKeyTest() {
    folder_.write("a.jsonl", "one");
    folder_.write("b.jsonl", "two");
    fs::create_directories(folder_.path("tokenizer"));
    for (const char* name : {"tokenizer.model", "tokenizer_config.json"})
      if (fs::exists(kTokenizerFixtures + "/" + name))
        fs::copy_file(kTokenizerFixtures + "/" + name, folder_.path("tokenizer/") + name);
  }

  std::string key(std::vector<std::string> names = {"a.jsonl", "b.jsonl"}, int64_t vocab_size = 32000) {
    for (std::string& name : names) name = folder_.path(name);
    const auto tokenizer = open_tokenizer(folder_.path("tokenizer"));
    return data_key(as_dataset(names), config_, tokenizer.get(), vocab_size, folder_.path("cache"), {});
  }

  TestFolder folder_;
  Config config_;
};

TEST_F(DataKeyTest, IsTheSameForTheSame) {
  const std::string first = key();
  EXPECT_EQ(first.size(), 32u);
  EXPECT_EQ(key(), first);
  config_.data.shuffle = false;  // no say in the tokens
  config_.data.packing = true;
  config_.data.validation_split_percentage = 5;
  config_.data.split = "990,9,1";
  config_.optimizer.learning_rate = 1;
  config_.machine.seed = 7;
  config_.adapter.lora_r = 8;
  config_.output.output_dir = "out";
  EXPECT_EQ(key(), first);
  fs::rename(folder_.path("a.jsonl"), folder_.path("c.jsonl"));
  EXPECT_EQ(key({"c.jsonl", "b.jsonl"}), first);
}

TEST_F(DataKeyTest, IsAnotherForWhateverChangesTokens) {
  std::set<std::string> keys = {key()};
  size_t expected = 1;
  const auto differs = [&](const char* what) {
    keys.insert(key());
    EXPECT_EQ(keys.size(), ++expected) << what;
  };
  for (const std::vector<std::string>& files :
       {std::vector<std::string>{"a.jsonl"}, {"b.jsonl", "a.jsonl"}, {"a.jsonl", "b.jsonl", "b.jsonl"}}) {
    keys.insert(key(files));
    EXPECT_EQ(keys.size(), ++expected);
  }
  keys.insert(key({"a.jsonl", "b.jsonl"}, 31999));
  EXPECT_EQ(keys.size(), ++expected);
  config_.data.max_seq_length = 99;
  differs("max_seq_length");
  config_.data.long_documents = LongDocuments::kSplit;
  differs("long_documents");
  config_.data.train_on_prompt = true;
  differs("train_on_prompt");
  config_.data.dataset_format = DatasetFormat::kText;
  differs("dataset_format");
  folder_.write("b.jsonl", "TWO");
  differs("content");
  folder_.write("tokenizer/chat_template.jinja", "{{ messages }}");
  differs("chat template");
  folder_.write("tokenizer/added_tokens.json", "{}");
  differs("added tokens");
}

// Sets both times of change back, as if the file had been left alone since; the time of the inode stays.
void settle(const std::string& path) {
  usleep(2'100'000);
  EXPECT_TRUE(fs::exists(path));
}

TEST_F(DataKeyTest, HashesAreRememberedUntilAFileChanges) {
  const std::string path = folder_.path("a.jsonl"), cache = folder_.path("cache");
  const auto memories = [&] {
    return fs::exists(cache) ? std::distance(fs::directory_iterator(cache), fs::directory_iterator()) : 0;
  };
  const std::string hash = hash_file(path);
  EXPECT_EQ(remembered_hash(path, cache, {}), hash);
  EXPECT_EQ(memories(), 0);  // it may change again within the same tick of the clock
  settle(path);
  EXPECT_EQ(remembered_hash(path, cache, {}), hash);
  ASSERT_EQ(memories(), 1);
  // The remembered hash is returned: the file is not read again.
  const std::string memory = fs::directory_iterator(cache)->path();
  const std::string other(64, 'a');
  folder_.write("cache/" + fs::path(memory).filename().string(), other);
  EXPECT_EQ(remembered_hash(path, cache, {}), other);
  folder_.write("cache/" + fs::path(memory).filename().string(), "damaged");
  EXPECT_EQ(remembered_hash(path, cache, {}), hash);

  // The file keeps its size, and its time of change is set back.
  struct stat before {};
  ASSERT_EQ(stat(path.c_str(), &before), 0);
  folder_.write("a.jsonl", "eno");
  const timespec times[2] = {before.st_atim, before.st_mtim};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  EXPECT_EQ(remembered_hash(path, cache, {}), hash_file(path));
  EXPECT_NE(hash_file(path), hash);
}

}  // namespace
}  // namespace mixtune
