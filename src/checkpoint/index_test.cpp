#include "checkpoint/index.h"

#include "checkpoint/test_model.h"

namespace mixtune {
namespace {

void expect_bad_index(const std::string& json, const std::vector<std::string>& fragments) {
  expect_user_error([&] { parse_index(json, "index.json"); }, fragments);
}

std::string naming(const std::string& file) {
  return fmt::format(R"({{"metadata":{{"total_size":8}},"weight_map":{{"a":"{}"}}}})", file);
}

TEST(Index, ReadsWhatItWrites) {
  const WeightMap weight_map = {{"a", "model-1.safetensors"}, {"b\"", "model-2.safetensors"}};
  EXPECT_EQ(parse_index(format_index(weight_map, 12), "i"), weight_map);
  EXPECT_NE(format_index(weight_map, 12).find("\"total_size\": 12"), std::string::npos);
  EXPECT_EQ(
      parse_index(R"({"weight_map":{"a":"x.safetensors"},"metadata":{"other":[1,{"b":null}]},"more":2})", "i").size(),
      1u);
}

TEST(Index, FilesStayInTheFolder) {
  EXPECT_EQ(parse_index(naming("x.safetensors"), "i").at("a"), "x.safetensors");
  for (const char* file :
       {"../x.safetensors", "/etc/x.safetensors", "sub/x.safetensors", "..\\\\x.safetensors", "..", ".", "",
        "config.json", "x.safetensors/", "x.safetensors\\u0000", "../../blobs/x\\u0000.safetensors"})
    expect_bad_index(naming(file), {"index.json: tensor 'a' is said to be in '", "without a path"});
}

TEST(Index, Malformed) {
  for (const char* json :
       {"", "{", "[]", "3", R"({"weight_map":[]})", R"({"weight_map":3})", R"({"weight_map":{"a":3}})",
        R"({"weight_map":{"a":["x.safetensors"]}})", R"({"weight_map":{"a":{}}})"})
    expect_bad_index(json, {"index.json: "});
  expect_bad_index("{}", {"has no weight_map"});
  expect_bad_index(R"({"weight_map":{}})", {"names no tensor"});
  expect_bad_index(R"({"weight_map":{"a":"x.safetensors","a":"y.safetensors"}})", {"'a'", "twice"});
  expect_bad_index(R"({"metadata":)" + std::string(100'000, '['), {"deeper than 4"});
}

}  // namespace
}  // namespace mixtune
