// Users' data files of all kinds, through the program itself: read, or refused by one line with the command that
// converts them, and nothing written.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "data/test_compress.h"
#include "program.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;
using namespace std::string_literals;

const std::string kFirst = "{\"input_ids\": [1, 5, 6], \"labels\": [-100, 5, 6]}";
const std::string kSecond = "{\"input_ids\": [1, 7], \"labels\": [-100, 7]}";
const std::string kLines = kFirst + "\n" + kSecond + "\n", kArray = "[\n" + kFirst + ",\n" + kSecond + "\n]\n";

class DataFiles : public testing::Test {
 protected:
  Outcome preprocess(const std::vector<std::string>& more) {
    std::vector<std::string> args = {"preprocess", "--output=out.jsonl"};
    args.insert(args.end(), more.begin(), more.end());
    return run_mixtune(args, work_.path());
  }

  // What is written for good data; the output is then removed.
  std::string output_of(const std::vector<std::string>& more) {
    const Outcome outcome = preprocess(more);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    const std::string output = outcome.code == 0 ? read(work_.path() / "out.jsonl") : "";
    fs::remove(work_.path() / "out.jsonl");
    return output;
  }

  // The one line that refuses bad data.
  std::string refusal(const std::vector<std::string>& more) {
    const auto before = snapshot(work_.path());
    const Outcome outcome = preprocess(more);
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
    EXPECT_EQ(snapshot(work_.path()), before);
    return outcome.err;
  }

  void put(const std::string& name, const std::string& content) { write(work_.path() / name, content); }

  TempFolder work_;
};

TEST_F(DataFiles, TheSameRecordsInEveryFormAreTheSame) {
  put("lines.jsonl", kLines);
  const std::string expected = output_of({"--train_file=lines.jsonl"});
  EXPECT_EQ(std::ranges::count(expected, '\n'), 2) << expected;
  for (const std::string& content : {kArray, "\xEF\xBB\xBF" + kLines, "\xEF\xBB\xBF" + kArray, gzip(kLines),
                                     gzip(kArray), zstd(kLines), zstd(kArray), gzip(kFirst + "\n") + gzip(kSecond)}) {
    put("data", content);
    EXPECT_EQ(output_of({"--train_file=data"}), expected);
  }
}

TEST_F(DataFiles, PatternsListsAndDataSets) {
  put("lines.jsonl", kLines);
  const std::string expected = output_of({"--train_file=lines.jsonl"});
  put("part-1.jsonl", kFirst);
  put("part-2.json.gz", gzip("[" + kSecond + "]"));
  put("run.yaml", "datasets:\n  - path: part-1*\n    format: tokenized\n  - {path: lines.jsonl, max_samples: 1}\n");
  EXPECT_EQ(output_of({"--train_file=part-*"}), expected);
  EXPECT_EQ(output_of({"--train_file=part-1.*", "--train_file=*.gz"}), expected);
  EXPECT_EQ(output_of({"--datasets", "part-1.jsonl part-*.gz"}), expected);
  const std::string line = expected.substr(0, expected.find('\n') + 1);
  EXPECT_EQ(output_of({"run.yaml"}), line + line);

  expect_part(refusal({"--train_file=none-*"}), "--train_file: no file matches 'none-*'");
  const Outcome weighted = preprocess({"--datasets", "0.3 part-1.jsonl 0.7 lines.jsonl"});
  EXPECT_EQ(weighted.code, 0);
  expect_part(weighted.err, "datasets: weights have no effect on what preprocess writes");
  expect_part(refusal({"run.yaml", "--train_file=lines.jsonl"}), "run.yaml:1: datasets: there is a train_file too");
  expect_part(refusal({"part-1.jsonl", "--train_file=lines.jsonl"}), "once for each file, or a pattern in quotes");
}

TEST_F(DataFiles, NothingBehindANulIsDropped) {
  put("data.jsonl", kFirst + std::string(100, '\0') + kSecond + "\n" + kSecond + "\n");
  expect_part(refusal({"--train_file=data.jsonl"}),
              fmt::format("data.jsonl:1: holds a NUL byte at byte {}", kFirst.size() + 1));
  put("data.jsonl", kLines + std::string(4096, '\0'));
  expect_part(refusal({"--train_file=data.jsonl"}), "data.jsonl:3: holds a NUL byte at byte 1");
  put("data.json", kArray + std::string(10, '\0'));
  expect_part(refusal({"--train_file=data.json"}), "data.json: something follows the array of records");
}

TEST_F(DataFiles, WhatIsNoJsonHasTheCommandThatConvertsIt) {
  struct Foreign {
    std::string name, content, what, command;
  };
  for (const auto& [name, content, what, command] : {
           Foreign{"a.parquet", "PAR1\x15\x04", "is a Parquet file", "datasets.Dataset.from_parquet('a.parquet')"},
           Foreign{"a.arrow", "ARROW1\0\0"s, "is an Arrow file", "f.read_table('a.arrow')"},
           Foreign{"b.arrow", "\xFF\xFF\xFF\xFF\x40\x02", "is an Arrow stream",
                   "datasets.Dataset.from_file('b.arrow')"},
           Foreign{"a.csv", "instruction,output\nx,y\n", "is a table (csv)", "pandas.read_csv('a.csv', dtype=str"},
           Foreign{"a.csv.gz", gzip("instruction,output\n"), "is a table (csv)",
                   "pandas.read_csv('a.csv.gz', dtype=str"},
           Foreign{"a.zip", "PK\x03\x04", "is a zip archive", "unzip -p a.zip"},
           Foreign{"a.jsonl", "\xFF\xFE{\0}\0\n\0"s, "is UTF-16 text", "iconv -f UTF-16 -t UTF-8 a.jsonl"},
           Foreign{"b.jsonl", "{\0}\0\n\0"s, "is UTF-16LE text", "iconv -f UTF-16LE -t UTF-8 b.jsonl"},
           Foreign{"c.json", "{\n \"a\": 1\n}\n", "goes on in the next line", "jq -c . c.json"},
           Foreign{"d.jsonl.gz", gzip(kLines).substr(0, 40), "the gzip data is cut short at byte 40", "again"},
           Foreign{"e.json", "[" + kFirst + "," + kSecond, "the array does not end after record 2", "again"},
       }) {
    put(name, content);
    const std::string line = refusal({"--train_file=" + name});
    expect_part(line, name);
    expect_part(line, what);
    expect_part(line, command);
  }
  fs::create_directory(work_.path() / "disk");
  put("disk/state.json", "{}");
  put("disk/dataset_info.json", "{}");
  expect_part(refusal({"--train_file=disk"}), "datasets.load_from_disk('disk').to_json('data.jsonl')");
  expect_part(refusal({"--train_file=tatsu-lab/alpaca"}), "hf download tatsu-lab/alpaca --repo-type dataset");
  expect_part(refusal({"--train_file=https://a.org/b.jsonl"}), "curl -fLO https://a.org/b.jsonl");
  expect_part(refusal({"--train_file=s3://a/b.jsonl"}), "aws s3 cp s3://a/b.jsonl .");
}

TEST_F(DataFiles, EvaluateTakesThemToo) {
  make_model(work_.path() / "model");
  put("lines.jsonl", kLines);
  put("array.json.zst", zstd(kArray));
  const auto evaluate = [&](const std::string& file) {
    const Outcome outcome = run_mixtune({"evaluate", "model", "--file", file, "--json"}, work_.path());
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome.out;
  };
  EXPECT_EQ(evaluate("array.json.zst"), evaluate("lines.jsonl"));
  EXPECT_EQ(evaluate("arr*"), evaluate("lines.jsonl"));
  EXPECT_NE(run_mixtune({"inspect", "array.json.zst"}, work_.path()).out.find("records: 2"), std::string::npos);
}

}  // namespace
}  // namespace mixtune
