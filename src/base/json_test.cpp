#include "base/json.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/json_value.h"

namespace mixtune {
namespace {

// Records each call.
class Recorder : public JsonVisitor {
 public:
  void open(const JsonPath& path, Container container) override {
    add(path, container == Container::kObject ? "{" : "[");
  }
  void scalar(const JsonPath& path, bool in_array, JsonScalar& value) override {
    constexpr const char* kKinds[] = {"null", "bool", "unsigned", "negative", "double", "string"};
    add(path, fmt::format("{}{}", in_array ? "," : "", kKinds[value.index()]));
  }
  void close(const JsonPath& path, Container container) override {
    add(path, container == Container::kObject ? "}" : "]");
  }

  std::string calls;

 private:
  void add(const JsonPath& path, const std::string& what) { calls += fmt::format("{}{} ", fmt::join(path, "."), what); }
};

std::string calls(std::string_view text) {
  Recorder recorder;
  read_json(text, "where", "mend", 4, recorder);
  return recorder.calls;
}

// The error of both readers, which must be the same.
std::string error(std::string_view text) {
  std::string messages[2];
  const auto read = [&](int i) {
    try {
      i == 0 ? static_cast<void>(calls(text)) : static_cast<void>(parse_json_object(text, "where", "mend", 4));
    } catch (const UserError& refused) {
      messages[i] = refused.what();
    }
  };
  read(0);
  read(1);
  EXPECT_EQ(messages[0], messages[1]) << text;
  EXPECT_EQ(messages[0].find('\n'), std::string::npos) << messages[0];
  return messages[0];
}

void expect_error(std::string_view text, const std::string& start) {
  const std::string message = error(text);
  EXPECT_TRUE(message.starts_with("where: " + start)) << message;
  EXPECT_TRUE(message.ends_with("; mend")) << message;
}

std::string object_error(std::string_view text) {
  try {
    parse_json_object(text, "where", "mend", 4);
  } catch (const UserError& refused) {
    return refused.what();
  }
  return "";
}

TEST(Json, VisitsEachPieceWithItsPath) {
  EXPECT_EQ(calls(R"({"a":1,"b":{"c":[-1,{"d":"x"},[]],"e":null},"f":2.5})"),
            "{ aunsigned b{ b.c[ b.c,negative b.c{ b.c.dstring b.c} b.c[ b.c] b.c] b.enull b} fdouble } ");
  EXPECT_EQ(calls("[true]"), "[ ,bool ] ");
  EXPECT_EQ(calls("3"), "unsigned ");
}

TEST(Json, BuildsTheTree) {
  for (const char* text : {"{}", R"({"a":[1,-2,2.5,true,null,"x",[],{}],"b":{"c":{"d":3}},"e":"\u00e9\n\ud83e\udd17"})",
                           R"({"a":{"b":[{"a":18446744073709551615},{"a":-9223372036854775808}]},"b":{"a":[]}})"})
    EXPECT_EQ(parse_json_object(text, "where", "mend", 4), nlohmann::json::parse(text));
}

TEST(Json, RefusesWhatIsNotAnObject) {
  for (const char* text : {"[{}]", "[", "1", "-1", "1.5", "true", "null", "\"text\""})
    EXPECT_EQ(object_error(text), "where: is not a JSON object; mend") << text;
}

TEST(Json, SaysWhereAndWhyTextIsNotJson) {
  EXPECT_EQ(error("{\"a\":"),
            "where: is not valid JSON at byte 6: syntax error while parsing value - unexpected end of input; expected "
            "'[', '{', or a literal; mend");
  for (const char* text : {"", "{", "{} x", "{}{}", "{'a':1}", "{\"a\":NaN}", "{\"a\":\"\\ud800\"}", "\x1f\x8b\x08"})
    expect_error(text, "is not valid JSON at byte ");
  for (const char* text : {"{\"a\":\"\xff\"}", "{\"\xed\xa0\x80\":1}"})
    expect_error(text, "is not valid JSON at byte ");
  EXPECT_NE(error("{\"a\":1e999}").find("number overflow"), std::string::npos);
  EXPECT_LT(error("{\"a\":\"\x1b[2J" + std::string(100000, 'x')).size(), 300u);
}

TEST(Json, RefusesNulBytesAnywhere) {
  const std::string text = R"({"a":["x",1],"b":null})";
  for (size_t at = 0; at <= text.size(); ++at) {
    for (const size_t count : {1u, 5u}) {
      std::string holed = text;
      expect_error(holed.insert(at, count, '\0'), fmt::format("holds a NUL byte at byte {}", at + 1));
    }
  }
  expect_error(text + std::string(3, '\0') + text, "holds a NUL byte at byte 23");
  EXPECT_EQ(parse_json_object(R"({"a":"x\u0000y"})", "where", "mend", 4)["a"], std::string("x\0y", 3));
}

TEST(Json, RefusesRepeatedKeysAtAnyDepth) {
  expect_error(R"({"a":1,"a":2})", "the key 'a' stands twice in one object");
  expect_error(R"({"a":[{"b":1,"c":{"b":1},"b":1}]})", "the key 'b' stands twice in one object");
  expect_error("{\"\x1b\":1,\"\\u001b\":1}", "is not valid JSON");
  expect_error(R"({"\u001b":1,"\u001b":1})", "the key '\\x1b' stands twice");
  EXPECT_EQ(error(R"({"a":{"a":1},"b":{"a":1}})"), "");
}

TEST(Json, BoundsTheDepth) {
  EXPECT_EQ(error(R"({"a":[[[1]]]})"), "");
  EXPECT_EQ(error(R"({"a":{"a":{"a":{}}}})"), "");
  expect_error(R"({"a":[[[[]]]]})", "nests deeper than 4 levels");
  expect_error(R"({"a":{"a":{"a":{"a":{}}}}})", "nests deeper than 4 levels");
  expect_error("{\"a\":" + std::string(1 << 20, '['), "nests deeper than 4 levels");
}

TEST(Json, KeepsTheOrderOfKeysWhereAsked) {
  std::string text = R"({"z":{"b":1,"a":[{"y":1,"x":null}]})";
  for (int i = 9; i >= 0; --i) text += fmt::format(R"(,"k{}":[{},"{}"])", i, i, std::string(40, 'x'));
  text += "}";
  EXPECT_EQ(parse_ordered_json_object(text, "where", "mend", 4).dump(), text);
  EXPECT_EQ(parse_ordered_json(text, "where", "mend", 4).dump(), text);
  for (const char* value : {"[{\"b\":1,\"a\":2}]", "1", "\"x\"", "null"})
    EXPECT_EQ(parse_ordered_json(value, "where", "mend", 4).dump(), value);
}

TEST(Json, ReadsAnObjectOfManyKeys) {
  std::string text = "{\"first\":[" + std::string(1 << 20, ' ') + "]";
  for (int i = 0; i < 200000; ++i) text += fmt::format(",\"{}\":{{}}", i);
  EXPECT_EQ(parse_ordered_json_object(text + "}", "where", "mend", 4).size(), 200001u);
}

}  // namespace
}  // namespace mixtune
