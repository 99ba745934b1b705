#include "data/json_text.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cstdlib>
#include <string_view>

namespace mixtune {

namespace {

using nlohmann::ordered_json;

// The shortest digits that read back the same; an exponent where the point would stand beyond 16 digits, or more than
// three zeros behind it (CPython's float_repr_style "short").
std::string float_text(double value) {
  std::array<char, 32> buffer{};  // ends with a NUL, for atoi
  const auto end = std::to_chars(buffer.begin(), buffer.end(), value, std::chars_format::scientific).ptr;
  const std::string_view text(buffer.begin(), end);
  const int exponent = std::atoi(text.data() + text.find('e') + 1);
  if (exponent < -4 || exponent >= 16) return std::string(text);
  const auto plain = std::to_chars(buffer.begin(), buffer.end(), value, std::chars_format::fixed).ptr;
  std::string result(buffer.begin(), plain);
  return result.find('.') == result.npos ? result + ".0" : result;
}

void append(std::string& text, const ordered_json& value) {
  const char* between = "";
  if (value.is_object()) {
    text += '{';
    for (const auto& [key, member] : value.get_ref<const ordered_json::object_t&>()) {
      text += fmt::format("{}{}: ", between, ordered_json(key).dump());
      append(text, member);
      between = ", ";
    }
    text += '}';
  } else if (value.is_array()) {
    text += '[';
    for (const ordered_json& element : value) {
      text += between;
      append(text, element);
      between = ", ";
    }
    text += ']';
  } else {
    text += value.is_number_float() ? float_text(value.get<double>()) : value.dump();
  }
}

}  // namespace

std::string json_text(const ordered_json& value) {
  std::string text;
  append(text, value);
  return text;
}

}  // namespace mixtune
