#include "report/svg.h"

#include <fmt/format.h>

#include "base/error.h"

namespace mixtune {

namespace {

// "12", "12.5"
std::string coordinate(double number) {
  std::string text = fmt::format("{:.1f}", number);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text == "-0" ? "0" : text;
}

}  // namespace

std::string xml_text(std::string_view text) {
  const bool whole = is_utf8(text);
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else
      out += (byte < ' ' && c != '\n') || byte == 0x7F || (byte > 0x7F && !whole) ? '?' : c;
  }
  return out;
}

std::string text_at(SvgPoint place, std::string_view style, std::string_view text) {
  return fmt::format("<text x=\"{}\" y=\"{}\" class=\"{}\">{}</text>\n", coordinate(place.x), coordinate(place.y),
                     style, xml_text(text));
}

void PathData::dot(SvgPoint place) {
  move(place);
  data_ += "h0";
}

void PathData::add(char command, SvgPoint place) {
  data_ += fmt::format("{}{} {}", command, coordinate(place.x), coordinate(place.y));
}

std::string PathData::element(std::string_view style) const {
  return data_.empty() ? "" : fmt::format("<path class=\"{}\" d=\"{}\"/>\n", style, data_);
}

}  // namespace mixtune
