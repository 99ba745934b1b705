#include "data/python_json.h"

#include <gtest/gtest.h>

#include "data/template_fixtures.h"

namespace mixtune {
namespace {

TEST(PythonJson, DumpsAsPython) {
  for (const auto& item : template_cases("python_json")) {
    const std::optional<std::string> dump = dump_as_python(item["text"].get<std::string>());
    ASSERT_EQ(dump.has_value(), item.contains("dump")) << item;
    if (dump) {
      EXPECT_EQ(*dump, item["dump"].get<std::string>());
    }
  }
}

TEST(PythonJson, TakesNoHalfOfAPair) {
  for (const char* text : {R"("\ud83e")", R"("\ud83ex")", R"("\udd17")", R"("\ud83e\u0041")"})
    EXPECT_FALSE(dump_as_python(text)) << text;
}

TEST(PythonJson, DepthIsBounded) {
  const auto nested = [](size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  EXPECT_TRUE(dump_as_python(nested(200)));
  EXPECT_FALSE(dump_as_python(nested(300)));
  EXPECT_FALSE(dump_as_python(std::string(1 << 20, '[')));
}

TEST(PythonJson, EveryCutIsRefusedOrRead) {
  const std::string text = R"({"a": [1, -2.5e3, "b\n\u00e9", {"c": null}], "d": true})";
  for (size_t size = 0; size < text.size(); ++size) EXPECT_FALSE(dump_as_python(text.substr(0, size))) << size;
}

}  // namespace
}  // namespace mixtune
