#include "data/data_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "config/load.h"
#include "data/test_folder.h"

namespace mixtune {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

class DataFilesTest : public testing::Test {
 protected:
  DataFilesTest() {
    for (const char* name : {"b.jsonl", "a.jsonl", "A.jsonl", "a10.jsonl", "a9.jsonl", ".hidden.jsonl", "x[1].jsonl",
                             "x1.jsonl", "table.json"})
      folder_.write(name, "{}\n");
    std::filesystem::create_directory(folder_.path("sub"));
    folder_.write("sub/c.jsonl", "{}\n");
  }

  // The files, without the folder's name, that patterns in it match.
  std::vector<std::string> find(const std::vector<std::string>& patterns) const {
    std::vector<std::string> paths;
    for (const std::string& pattern : patterns) paths.push_back(folder_.path(pattern));
    std::vector<std::string> files = find_data_files(paths, "key");
    for (std::string& file : files) file.erase(0, folder_.path().size());
    return files;
  }
  std::string error_of(const std::string& path) const {
    return user_error([&] { find_data_files(std::vector{path}, "run.yaml:3: train_file"); });
  }

  TestFolder folder_;
};

TEST_F(DataFilesTest, PatternsBecomeTheFilesTheyMatchByName) {
  EXPECT_THAT(find({"*.jsonl"}),
              ElementsAre("A.jsonl", "a.jsonl", "a10.jsonl", "a9.jsonl", "b.jsonl", "x1.jsonl", "x[1].jsonl"));
  EXPECT_THAT(find({"a?.jsonl", "[bA].jsonl"}), ElementsAre("a9.jsonl", "A.jsonl", "b.jsonl"));
  EXPECT_THAT(find({"*/*.jsonl"}), ElementsAre("sub/c.jsonl"));
  EXPECT_THAT(find({"b.jsonl", "a.jsonl", "b.jsonl"}), ElementsAre("b.jsonl", "a.jsonl", "b.jsonl"));
}

TEST_F(DataFilesTest, AFileThatIsThereIsNoPattern) {
  EXPECT_THAT(find({"x[1].jsonl"}), ElementsAre("x[1].jsonl"));
  std::filesystem::remove(folder_.path("x[1].jsonl"));
  EXPECT_THAT(find({"x[1].jsonl"}), ElementsAre("x1.jsonl"));
}

TEST_F(DataFilesTest, WhatIsNoFileIsNamedWithWhatToDo) {
  EXPECT_EQ(error_of(folder_.path("*.gz")),
            "run.yaml:3: train_file: no file matches '" + folder_.path("*.gz") +
                "'; check it: paths are relative to the folder that the command is started in");
  EXPECT_THAT(error_of(folder_.path("**/*.jsonl")), HasSubstr("'**' is not supported; write a '*' for each level"));
  EXPECT_THAT(error_of(folder_.path("none.jsonl")), HasSubstr("none.jsonl' cannot be opened (No such file"));
  EXPECT_EQ(error_of(folder_.path()), "run.yaml:3: train_file: '" + folder_.path() +
                                          "' is a folder; name its files by a pattern: '" + folder_.path() +
                                          "*.jsonl'");
  EXPECT_THAT(error_of(folder_.path("s*")), HasSubstr("/sub' is a folder; name its files"));
  EXPECT_THAT(error_of("tatsu-lab/alpaca"), HasSubstr("hf download tatsu-lab/alpaca --repo-type dataset"));
  EXPECT_THAT(error_of("https://a.org/*.jsonl?x"), HasSubstr("is an address"));
  EXPECT_THAT(error_of("/dev/zero"), HasSubstr("'/dev/zero' is not a regular file"));
  ASSERT_EQ(mkfifo(folder_.path("pipe").c_str(), 0600), 0);
  EXPECT_THAT(error_of(folder_.path("pi*")), HasSubstr("is not a regular file"));
}

TEST_F(DataFilesTest, OfAConfig) {
  const std::string f = folder_.path();
  Config config =
      parse_config("train_file: [" + f + "b.jsonl, " + f + "a9*]\nvalidation_file: " + f + "sub/*\n", "run.yaml");
  EXPECT_THAT(files_of(train_datasets(config)), ElementsAre(f + "b.jsonl", f + "a9.jsonl"));
  EXPECT_THAT(files_of(validation_datasets(config)), ElementsAre(f + "sub/c.jsonl"));
  EXPECT_TRUE(validation_datasets(Config()).empty());
  const Config named = parse_config("validation_file: {x: " + f + "sub/*, b: " + f + "b.jsonl}\n", "run.yaml");
  const std::vector<ValidationSet> sets = validation_sets(named);
  ASSERT_EQ(sets.size(), 2u);
  EXPECT_EQ(sets[0].name, "b");
  EXPECT_EQ(sets[1].name, "x");
  EXPECT_THAT(sets[1].dataset.path, ElementsAre(f + "sub/c.jsonl"));
  EXPECT_THAT(files_of(validation_datasets(named)), ElementsAre(f + "b.jsonl", f + "sub/c.jsonl"));

  config = parse_config(
      "datasets: [{path: " + f + "a*0.jsonl, format: text, max_samples: 3}, {path: " + f + "b.jsonl}]", "run.yaml");
  const std::vector<Dataset> datasets = train_datasets(config);
  ASSERT_EQ(datasets.size(), 2u);
  EXPECT_EQ(datasets[0], (Dataset{.path = {f + "a10.jsonl"}, .format = DatasetFormat::kText, .max_samples = 3}));
  EXPECT_THAT(files_of(datasets), ElementsAre(f + "a10.jsonl", f + "b.jsonl"));
}

TEST_F(DataFilesTest, WhatIsWrongWithAnEntryNamesIt) {
  const auto error = [&](const std::string& more) {
    const std::string entry = "{path: " + folder_.path("b.jsonl");
    const Config config = parse_config("datasets: [" + entry + more + "}, " + entry + more + "}]\n", "run.yaml");
    return user_error([&] { train_datasets(config); });
  };
  EXPECT_EQ(error(""), "");
  EXPECT_EQ(error(", weight: 1, template: chatml, split: '1,1,1'"), "");
  EXPECT_THAT(error(", split: train"), StartsWith("run.yaml:1: datasets: entry 1: split: 'train' is not a split"));
  const Config config =
      parse_config("datasets: [{path: " + folder_.path("b.jsonl") + "}, {path: none.jsonl}]", "run.yaml");
  EXPECT_THAT(user_error([&] { train_datasets(config); }),
              StartsWith("run.yaml:1: datasets: entry 2: 'none.jsonl' cannot"));
  EXPECT_THAT(user_error([&] {
                train_datasets(parse_config("split: 1;2\ntrain_file: " + folder_.path("b.jsonl"), "run.yaml"));
              }),
              StartsWith("run.yaml:1: split: '1;2' is not a split; give the weights of training, validation and test"));
}

}  // namespace
}  // namespace mixtune
