#include "data/record_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "data/test_folder.h"

namespace mixtune {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

using Records =
    std::vector<std::pair<std::string, nlohmann::ordered_json>>;  // each record's place in the file, and itself

Records read_all(const std::string& path) {
  RecordReader reader(path);
  Records records;
  for (nlohmann::ordered_json record; reader.next(record);)
    records.emplace_back(reader.where().substr(path.size()), record);
  return records;
}

class RecordReaderTest : public testing::Test {
 protected:
  std::string error_of(std::string_view content) {
    const std::string path = folder_.write("data.jsonl", content);
    const std::string message = user_error([&] { read_all(path); });
    return message.starts_with(folder_.path()) ? message.substr(folder_.path().size()) : "elsewhere: " + message;
  }

  TestFolder folder_;
};

TEST_F(RecordReaderTest, ReadsRecordsWithTheirLines) {
  const auto records = read_all(folder_.write("a.jsonl", "{\"a\": 1}\n{\"a\": 2}\n"));
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].first, ":1");
  EXPECT_EQ(records[1].first, ":2");
  EXPECT_EQ(records[1].second, nlohmann::ordered_json({{"a", 2}}));
}

TEST_F(RecordReaderTest, KeepsEveryKindOfValue) {
  const std::string text = R"({"a":[1,-2,2.5,true,null,"x",[],{}],"b":{"c":{"d":[[[]]]}},"e":"\u00e9\n\ud83e\udd17"})";
  const auto records = read_all(folder_.write("a.jsonl", text));
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].second, nlohmann::ordered_json::parse(text));
}

TEST_F(RecordReaderTest, TakesBlankLinesCrlfByteOrderMarkAndNoLastNewline) {
  const auto records =
      read_all(folder_.write("a.jsonl", "\xEF\xBB\xBF{\"a\":1}\r\n\r\n  \t\n\n{\"a\":2}\r\n{\"a\":3}"));
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(records[0].first, ":1");
  EXPECT_EQ(records[1].first, ":5");
  EXPECT_EQ(records[2].first, ":6");
  EXPECT_EQ(records[2].second["a"], 3);
}

TEST_F(RecordReaderTest, ReadsAFileWithoutRecords) {
  EXPECT_TRUE(read_all(folder_.write("a.jsonl", "")).empty());
  EXPECT_TRUE(read_all(folder_.write("a.jsonl", "\n \r\n\t")).empty());
  EXPECT_TRUE(read_all(folder_.write("a.jsonl", "\xEF\xBB\xBF")).empty());
}

TEST_F(RecordReaderTest, LinesLongerThanAnyBuffer) {
  std::string content;
  for (const size_t length : {1u << 20, 3u << 20, 5u}) content += "{\"t\":\"" + std::string(length, 'x') + "\"}\n";
  const auto records = read_all(folder_.write("a.jsonl", content));
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(records[0].second["t"].get<std::string>().size(), 1u << 20);
  EXPECT_EQ(records[1].second["t"].get<std::string>().size(), 3u << 20);
  EXPECT_EQ(records[2].second["t"].get<std::string>().size(), 5u);
}

TEST_F(RecordReaderTest, ManyLinesAcrossBufferEdges) {
  std::string content;
  for (int i = 0; i < 60000; ++i) content += "{\"i\":" + std::to_string(i) + "}\n";
  const auto records = read_all(folder_.write("a.jsonl", content));
  ASSERT_EQ(records.size(), 60000u);
  for (int i = 0; i < 60000; ++i) ASSERT_EQ(records[i].second["i"], i);
}

TEST_F(RecordReaderTest, NamesTheBadLine) {
  EXPECT_THAT(error_of("{\"a\":1}\n\n{\"a\":\n"), StartsWith("data.jsonl:3: is not valid JSON at byte 6: "));
  EXPECT_THAT(error_of("{\"a\":1} x\n"), StartsWith("data.jsonl:1: is not valid JSON"));
  EXPECT_THAT(error_of("{\"a\":1}{\"a\":1}\n"), StartsWith("data.jsonl:1: is not valid JSON"));
  EXPECT_THAT(error_of("{'a':1}\n"), StartsWith("data.jsonl:1: is not valid JSON"));
  EXPECT_THAT(error_of("{\"a\":NaN}\n"), StartsWith("data.jsonl:1: is not valid JSON"));
  EXPECT_THAT(error_of("{\"a\":1e999}\n"), HasSubstr("number overflow"));
}

TEST_F(RecordReaderTest, RefusesWhatIsNotAnObject) {
  for (const char* line : {"1", "-1", "1.5", "true", "null", "\"text\""})
    EXPECT_THAT(error_of(line), StartsWith("data.jsonl:1: is not a JSON object")) << line;
  for (const char* line : {"[]", "[{\"a\":1}]"})
    EXPECT_THAT(error_of(std::string("{}\n") + line), StartsWith("data.jsonl:2: is not a JSON object")) << line;
}

TEST_F(RecordReaderTest, RefusesBadText) {
  using namespace std::string_literals;
  EXPECT_THAT(error_of("{\"a\":\"\xff\"}\n"), HasSubstr("data.jsonl:1: is not valid JSON"));
  EXPECT_THAT(error_of("{\"a\":\"\xed\xa0\x80\"}\n"), HasSubstr("not valid JSON"));  // a surrogate
  EXPECT_THAT(error_of("{\"a\":\"\\ud800\"}\n"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of("{\"a\":\"x\0y\"}\n"s), HasSubstr("data.jsonl:1: holds a NUL byte at byte 8"));
  EXPECT_THAT(error_of("{\"a\":1}\n\0\n"s), HasSubstr("data.jsonl:2: holds a NUL byte at byte 1"));
  EXPECT_THAT(error_of("{\"a\":1}\0\0\0{\"a\":2}\n{\"a\":3}\n"s),
              HasSubstr("data.jsonl:1: holds a NUL byte at byte 8"));
}

TEST_F(RecordReaderTest, AnObjectOverSeveralLinesIsNamed) {
  for (const char* text : {"{\n  \"a\": 1\n}\n", "{\"a\": [\n1]}", "{\"a\": 1,\r\n\"b\": 2}"})
    EXPECT_THAT(error_of(text), testing::AllOf(StartsWith("data.jsonl:1: the JSON object goes on in the next line"),
                                               HasSubstr("jq -c . ")))
        << text;
  EXPECT_THAT(error_of("{\n"), StartsWith("data.jsonl:1: is not valid JSON"));
  EXPECT_THAT(error_of("{\"a\":\n{\"a\":1}\n"), StartsWith("data.jsonl:1: is not valid JSON"));
  EXPECT_THAT(error_of("{}\n{\n}"), StartsWith("data.jsonl:2: is not valid JSON"));
}

TEST_F(RecordReaderTest, RefusesRepeatedKeysAtAnyDepth) {
  EXPECT_THAT(error_of("{\"a\":1,\"a\":2}"), HasSubstr("data.jsonl:1: the key 'a' stands twice in one object"));
  EXPECT_THAT(error_of("{\"a\":[{\"b\":1,\"b\":1}]}"), HasSubstr("the key 'b' stands twice in one object"));
  EXPECT_EQ(error_of("{\"a\":{\"a\":1},\"b\":{\"a\":1}}"), "elsewhere: ");
}

TEST_F(RecordReaderTest, RefusesNestingBombs) {
  const auto nested = [](int depth) {
    return "{\"a\":" + std::string(depth - 1, '[') + std::string(depth - 1, ']') + "}";
  };
  EXPECT_EQ(error_of(nested(kMaxJsonDepth)), "elsewhere: ");
  EXPECT_THAT(error_of(nested(kMaxJsonDepth + 1)), HasSubstr("data.jsonl:1: nests deeper than 64 levels"));
  EXPECT_THAT(error_of("{\"a\":" + std::string(1 << 20, '[')), HasSubstr("nests deeper than 64 levels"));
}

TEST_F(RecordReaderTest, MessagesShowNoRawBytesAndStayShort) {
  const std::string message = error_of("{\"a\":\"\x1b[2J" + std::string(100000, 'x') + "\"");
  EXPECT_EQ(message.find('\x1b'), message.npos);
  EXPECT_LT(message.size(), 400u);
}

TEST_F(RecordReaderTest, RefusesALineWithoutEnd) {
  const std::string path = folder_.write("big.jsonl", "{}\n");
  std::filesystem::resize_file(path, kMaxRecordBytes + 100);  // zeros, and no newline
  EXPECT_THAT(user_error([&] { read_all(path); }), HasSubstr("big.jsonl:2: the line is longer than 64.0 MiB"));
}

TEST_F(RecordReaderTest, AFileThatChangesWhileItIsReadIsAnError) {
  std::string content;
  for (int i = 0; i < 300'000; ++i) content += "{\"i\":" + std::to_string(i) + "}\n";
  const auto change = [&](const auto& action) {
    const std::string path = folder_.write("a.jsonl", content);
    RecordReader reader(path);
    nlohmann::ordered_json record;
    MT_CHECK(reader.next(record));
    action(path);
    try {
      while (reader.next(record)) {
      }
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(change([](const std::string& path) { std::filesystem::resize_file(path, 10); }),
              HasSubstr("a.jsonl: changed while it was read: it ends at byte "));
  EXPECT_THAT(change([&](const std::string& path) { std::ofstream(path, std::ios::app) << "{}\n"; }),
              HasSubstr("a.jsonl: changed while it was read; start again"));
  EXPECT_EQ(change([&](const std::string& path) {
              std::filesystem::rename(folder_.write("b.jsonl", "not JSON"), path);  // whoever has it open keeps it
            }),
            "");
}

TEST_F(RecordReaderTest, LinesOfTheLongestLengthAndOneMore) {
  const std::string record = "{\"t\":\"\"}", text(kMaxRecordBytes - record.size(), 'x');
  const std::string longest = "{\"t\":\"" + text + "\"}";
  EXPECT_EQ(read_all(folder_.write("a.jsonl", "{}\n" + longest + "\n{}\n")).size(), 3u);
  EXPECT_EQ(read_all(folder_.write("a.jsonl", longest)).size(), 1u);
  for (const char* end : {" \n{}\n", " "})
    EXPECT_THAT(error_of(longest + end), StartsWith("data.jsonl:1: the line is longer than 64.0 MiB"));
}

TEST_F(RecordReaderTest, RefusesWhatIsNotAFile) {
  EXPECT_THAT(user_error([&] { read_all(folder_.path()); }), HasSubstr("is a folder"));
  EXPECT_THAT(user_error([&] { read_all(folder_.path("none.jsonl")); }), HasSubstr("No such file"));
  EXPECT_THAT(user_error([&] { read_all("/dev/zero"); }), HasSubstr("is not a regular file"));
  const std::string pipe = folder_.path("pipe");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(user_error([&] { read_all(pipe); }), HasSubstr("is not a regular file"));
}

}  // namespace
}  // namespace mixtune
