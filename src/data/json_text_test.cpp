#include "data/json_text.h"

#include <gtest/gtest.h>

namespace mixtune {
namespace {

std::string rewritten(const char* text) {
  return json_text(nlohmann::ordered_json::parse(text));
}

// What Python's json.dumps(json.loads(text), ensure_ascii=False) gives.
TEST(JsonText, IsPythons) {
  EXPECT_EQ(rewritten(R"({"b":1,"a":[1,2,{"z":null,"y":true}],"c":{},"d":[]})"),
            R"({"b": 1, "a": [1, 2, {"z": null, "y": true}], "c": {}, "d": []})");
  EXPECT_EQ(rewritten(R"(["\u00e9\ud83e\udd17\/", "\"\\\b\f\n\r\t\u0000\u001f\u007f\u2028"])"),
            "[\"\xC3\xA9\xF0\x9F\xA4\x97/\", \"\\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u001f\x7f\xE2\x80\xA8\"]");
  EXPECT_EQ(rewritten(R"({"\"":0})"), R"({"\"": 0})");
  EXPECT_EQ(rewritten("[-1, 18446744073709551615, -9223372036854775808, -0]"),
            "[-1, 18446744073709551615, -9223372036854775808, 0]");
}

TEST(JsonText, FloatsArePythons) {
  EXPECT_EQ(rewritten("[1.0, 0.1, 1e2, -2.50, 0.0, -0.0, 1e15, 123456789012345680.0]"),
            "[1.0, 0.1, 100.0, -2.5, 0.0, -0.0, 1000000000000000.0, 1.2345678901234568e+17]");
  EXPECT_EQ(rewritten("[9999999999999998.0, 1e16, 1.5e300, 5e-324, 1e-4, 0.0001234, 1e-5, 1.25e-7]"),
            "[9999999999999998.0, 1e+16, 1.5e+300, 5e-324, 0.0001, 0.0001234, 1e-05, 1.25e-07]");
}

}  // namespace
}  // namespace mixtune
