// Files that are one JSON array of records, and compressed files.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "data/record_reader.h"
#include "data/test_compress.h"
#include "data/test_folder.h"

namespace mixtune {
namespace {

using namespace std::string_literals;
using testing::StartsWith;

// The reader's account of a file, a line for each record and its place, and one for the error, if there is one.
std::string account_of(const TestFolder& folder, const std::string& content, const std::string& name = "data.json") {
  const std::string path = folder.write(name, content);
  std::string account;
  const std::string error = user_error([&] {
    RecordReader reader(path);
    for (nlohmann::ordered_json record; reader.next(record);)
      account += fmt::format("{} {}\n", reader.where().substr(path.size()), record.dump());
  });
  return account + (error.starts_with(path) ? error.substr(path.size()) : error);
}

const std::string kTwo = ": record 1 {\"a\":1}\n: record 2 {\"a\":[2,{\"b\":\"}]\\\"\"}]}\n";

TEST(RecordArray, ReadsArraysInAnyLayout) {
  const TestFolder folder;
  const std::string first = R"({"a":1})", second = R"({"a":[2,{"b":"}]\""}]})";
  for (const std::string& text :
       {"[" + first + "," + second + "]", "[" + first + "," + second + "]\n", "[\n" + first + ",\n" + second + "\n]\n",
        "[\r\n\t" + first + "\r\n,\r\n" + second + "\r\n]\r\n", "\n\n \t[ " + first + " , " + second + " ] \n\n",
        "\xEF\xBB\xBF[" + first + "," + second + "]", "[{\n \"a\"\n:\n1\n}\n,\n{\"a\":[2,\n{\"b\":\"}]\\\"\"}]}]"s}) {
    EXPECT_EQ(account_of(folder, text), kTwo) << text;
    EXPECT_EQ(account_of(folder, text, "data.jsonl"), kTwo) << text;
    EXPECT_EQ(account_of(folder, gzip(text)), kTwo) << text;
    EXPECT_EQ(account_of(folder, zstd(text), "data.json.zst"), kTwo) << text;
    const size_t half = text.size() / 2;
    EXPECT_EQ(account_of(folder, gzip(text.substr(0, half)) + gzip(text.substr(half))), kTwo) << text;
  }
}

TEST(RecordArray, AnEmptyArrayHasNoRecords) {
  const TestFolder folder;
  for (const std::string& text : {"[]"s, " [ ] "s, "[\n]\n"s, gzip("[]"), gzip(""), zstd(""), zstd("\n")})
    EXPECT_EQ(account_of(folder, text), "");
}

struct Bad {
  std::string text;
  std::string start;  // the account after the first record, {"a":1}; or the whole of it
};

TEST(RecordArray, SaysWhereTheArrayIsWrong) {
  const TestFolder folder;
  const std::string first = ": record 1 {\"a\":1}\n";
  for (const auto& [text, start] : {
           Bad{"[{\"a\":1},]", first + ": there is ']' after record 1, not a record; mend the array there"},
           Bad{"[{\"a\":1} {\"a\":2}]",
               first + ": there is '{' after record 1, not a comma or the array's end; mend the array there"},
           Bad{"[{\"a\":1}}", first + ": there is '}' after record 1"},
           Bad{"[{\"a\":1},,{\"a\":2}]", first + ": record 2: is not a JSON object"},
           Bad{"[,{\"a\":1}]", ": record 1: is not a JSON object"},
           Bad{"[{\"a\":1},[{\"a\":2}]]", first + ": record 2: is not a JSON object; each record must be one whole"},
           Bad{"[[{\"a\":1}]]", ": record 1: is not a JSON object"},
           Bad{"[1, 2]", ": record 1: is not a JSON object"},
           Bad{"[\"{}\"]", ": record 1: is not a JSON object"},
           Bad{"[{\"a\":1},null]", first + ": record 2: is not a JSON object"},
           Bad{"[{\"a\":1}] x", first + ": something follows the array of records; a file is one array, or"},
           Bad{"[{\"a\":1}]\n[{\"a\":2}]\n", first + ": something follows the array of records"},
           Bad{"[{\"a\":1}]\n{\"a\":2}\n", first + ": something follows the array of records"},
           Bad{"[{\"a\":1}]\0"s, first + ": something follows the array of records"},
           Bad{"[", ": the array does not end; the file is cut short"},
           Bad{"[ \n", ": the array does not end; the file is cut short"},
           Bad{"[{\"a\":1}", first + ": the array does not end after record 1; the file is cut short"},
           Bad{"[{\"a\":1},\n", first + ": the array does not end after record 1; the file is cut short"},
           Bad{"[{\"a\":1},{\"a\":", first + ": record 2: is not valid JSON at byte 6: "},
           Bad{"[{\"a\":1},{\"a\":\"x", first + ": record 2: is not valid JSON at byte "},
           Bad{"[{\"a\":1},{\"a\":\"x\n\"},{\"b\":\"", first + ": record 2: is not valid JSON at byte 8: "},
           Bad{"[{\"a\":1},{'a':1}]", first + ": record 2: is not valid JSON at byte 2: "},
           Bad{"[{\"a\":1},{\"a\":1]", first + ": record 2: is not valid JSON at byte 7: "},
           Bad{"[{\"a\":1},{\"a\":[}]", first + ": record 2: is not valid JSON at byte 7: "},
           Bad{"[{\"a\":1},{\"a\":1,\"a\":1}]", first + ": record 2: the key 'a' stands twice"},
           Bad{"[{\"a\":1},{\"a\":\"\xff\"}]", first + ": record 2: is not valid JSON"},
           Bad{"[{\"a\":1}\0]"s, first + ": there is '\\x00' after record 1, not a comma or the array's end"},
           Bad{"[{\"a\":1},\0{}]"s, first + ": record 2: is not a JSON object"},
           Bad{"[{\"a\":1},{\0}]"s, first + ": record 2: holds a NUL byte at byte 2"},
           Bad{"[{\"a\":1},{\"a\":\"\0\"}]"s, first + ": record 2: holds a NUL byte at byte 7"},
           Bad{"[{\"a\":1},{\"a\":" + std::string(63, '[') + std::string(63, ']') + "}]",
               first + ": record 2 {\"a\":[["},
           Bad{"[{\"a\":1},{\"a\":" + std::string(64, '[') + std::string(64, ']') + "}]",
               first + ": record 2: nests deeper than 64 levels"},
           Bad{"[{\"a\":1},{\"a\":" + std::string(1 << 20, '['), first + ": record 2: nests deeper than 64 levels"},
       })
    for (const std::string& content : {text, gzip(text), zstd(text)})
      EXPECT_THAT(account_of(folder, content), StartsWith(start)) << text.substr(0, 100);
}

TEST(RecordArray, EveryCutOfAnArrayIsAnError) {
  const TestFolder folder;
  const std::string text = R"([{"a":"x\\\"y"}, {"b":[1,{}]} ])";
  for (size_t size = 1; size < text.size(); ++size)
    EXPECT_NE(account_of(folder, text.substr(0, size)).find("; "), std::string::npos) << size;
}

TEST(RecordArray, ManyRecordsAcrossBufferEdges) {
  const TestFolder folder;
  std::string text = "[", expected;
  for (int i = 0; i < 60000; ++i) {
    text += fmt::format("{}{{\"i\":{}}}", i == 0 ? "" : i % 7 == 0 ? " ,\n\n" : ",", i);
    expected += fmt::format(": record {} {{\"i\":{}}}\n", i + 1, i);
  }
  text += "]";
  EXPECT_EQ(account_of(folder, text), expected);
  EXPECT_EQ(account_of(folder, gzip(text)), expected);
  EXPECT_EQ(account_of(folder, zstd(text)), expected);
}

TEST(RecordArray, RecordsOfTheLongestLengthAndOneMore) {
  const TestFolder folder;
  const std::string spaces(kMaxRecordBytes - 7, ' ');  // with the rest of {"t":1}
  EXPECT_EQ(account_of(folder, gzip("[{},{\"t\":" + spaces + "1},{}]")),
            ": record 1 {}\n: record 2 {\"t\":1}\n: record 3 {}\n");
  for (const char* more : {" 1},{}]", " 1}]", "   "})
    EXPECT_THAT(account_of(folder, zstd("[{},{\"t\":" + spaces + more)),
                StartsWith(": record 1 {}\n: record 2: the record is longer than 64.0 MiB"))
        << more;
}

TEST(RecordArray, IsReadRecordByRecord) {
  const TestFolder folder;
  const std::string many(kMaxRecordBytes / 4, ' ');
  std::string text = "[";
  for (int i = 0; i < 6; ++i) text += "{}" + many + ",";
  const std::string account = account_of(folder, zstd(text + "{}]"));
  EXPECT_EQ(std::ranges::count(account, '\n'), 7) << account;
  EXPECT_THAT(account, testing::EndsWith(": record 7 {}\n"));
}

TEST(CompressedJsonl, HasTheLinesOfWhatIsCompressed) {
  const TestFolder folder;
  const std::string expected = ":1 {\"a\":1}\n:3 {\"a\":2}\n";
  for (const std::string& text : {"{\"a\":1}\n\n{\"a\":2}\n"s, "\xEF\xBB\xBF{\"a\":1}\r\n\r\n{\"a\":2}"s}) {
    EXPECT_EQ(account_of(folder, gzip(text), "data.jsonl.gz"), expected);
    EXPECT_EQ(account_of(folder, zstd(text), "data.jsonl.zst"), expected);
    EXPECT_EQ(account_of(folder, gzip(text), "data.jsonl"), expected) << "by content, not by name";
    EXPECT_EQ(account_of(folder, text, "data.jsonl.gz"), expected) << "by content, not by name";
    EXPECT_EQ(account_of(folder, gzip(text.substr(0, 11)) + gzip(text.substr(11))), expected);
  }
  EXPECT_THAT(account_of(folder, gzip("{\"a\":1}\n{\"a\":\n")), StartsWith(":1 {\"a\":1}\n:2: is not valid JSON"));
}

TEST(CompressedJsonl, ACutFileIsAnErrorAfterWhatCanBeRead) {
  const TestFolder folder;
  std::string text;
  for (int i = 0; i < 1000; ++i) text += fmt::format("{{\"i\":{}}}\n", i * 2654435761u);
  for (const std::string& whole : {gzip(text), zstd(text)})
    EXPECT_THAT(account_of(folder, whole.substr(0, whole.size() - 10)),
                testing::HasSubstr(" data is cut short at byte "));
}

}  // namespace
}  // namespace mixtune
