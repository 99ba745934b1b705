// For tests: whether a text is well-formed XML.
#pragma once

#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

namespace mixtune {

// The opening tags of a document of elements, attributes and text alone, in their order. Throws std::runtime_error
// where it is not well-formed.
inline std::vector<std::string> tags_of_xml(const std::string& xml) {
  static const std::regex opening(R"(<([A-Za-z]+)((\s+[A-Za-z][A-Za-z:-]*="[^<"]*")*)\s*(/?)>)"),
      closing("</([A-Za-z]+)>"), wild("&(?!(amp|lt|gt|quot|apos|#[0-9]+);)");
  const auto fail = [](const std::string& what) {
    throw std::runtime_error("not well-formed XML: " + what);
  };
  if (std::smatch found; std::regex_search(xml, found, wild)) fail("a bare &");
  std::vector<std::string> tags, open;
  for (size_t i = 0; i < xml.size();) {
    if (xml[i] != '<') {
      const bool space = xml[i] == ' ' || xml[i] == '\n';
      if (open.empty() && !space) fail("text outside of the root");
      if (static_cast<unsigned char>(xml[i]) < ' ' && !space) fail("a control character");
      ++i;
      continue;
    }
    const size_t end = xml.find('>', i);
    if (end == xml.npos) fail("a tag without its end");
    const std::string tag = xml.substr(i, end + 1 - i);
    i = end + 1;
    std::smatch parts;
    if (std::regex_match(tag, parts, closing)) {
      if (open.empty() || open.back() != parts[1]) fail(tag);
      open.pop_back();
    } else if (std::regex_match(tag, parts, opening)) {
      if (open.empty() && !tags.empty()) fail("a second root");
      tags.push_back(tag);
      if (parts[4].length() == 0) open.push_back(parts[1]);
    } else {
      fail(tag);
    }
  }
  if (tags.empty() || !open.empty()) fail("an element without its end");
  return tags;
}

}  // namespace mixtune
