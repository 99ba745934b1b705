// For tests: whether a text is well-formed XML, and what its tags are.
#pragma once

#include <algorithm>
#include <cctype>
#include <stdexcept>
#include <string>
#include <vector>

namespace mixtune {

// The opening tags of a document of elements, attributes and text alone, in their order. Throws std::runtime_error
// where it is not well-formed.
class XmlTags {
 public:
  explicit XmlTags(const std::string& xml) : xml_(xml) {
    while (at_ < xml_.size()) xml_[at_] == '<' ? read_tag() : read_character();
    if (tags_.empty() || !open_.empty()) fail("an element without its end");
  }
  const std::vector<std::string>& tags() const { return tags_; }

 private:
  [[noreturn]] static void fail(const std::string& what) { throw std::runtime_error("not well-formed XML: " + what); }

  char next() const { return at_ < xml_.size() ? xml_[at_] : '\0'; }
  bool skip(const std::string& text) {
    const bool here = xml_.compare(at_, text.size(), text) == 0;
    if (here) at_ += text.size();
    return here;
  }
  void skip_space() {
    while (next() == ' ' || next() == '\n') ++at_;
  }
  std::string name() {
    const size_t begin = at_;
    while (std::isalnum(static_cast<unsigned char>(next())) || (at_ > begin && (next() == '-' || next() == ':'))) ++at_;
    if (at_ == begin) fail("a name is missing");
    return xml_.substr(begin, at_ - begin);
  }

  void read_character() {
    const char c = next();
    const bool space = c == ' ' || c == '\n';
    if (open_.empty() && !space) fail("text outside of the root");
    if (static_cast<unsigned char>(c) < ' ' && !space) fail("a control character");
    ++at_;
    if (c != '&') return;
    const size_t end = std::min(xml_.find(';', at_), xml_.size());
    const std::string entity = xml_.substr(at_, end - at_);
    for (const char* known : {"amp", "lt", "gt", "quot", "apos"})
      if (entity == known) return;
    fail("a bare &");
  }

  void read_tag() {
    const size_t begin = at_++;
    if (skip("/")) {
      if (open_.empty() || open_.back() != name()) fail("an end of another element");
      open_.pop_back();
      skip_space();
      if (!skip(">")) fail("a tag without its end");
      return;
    }
    if (open_.empty() && !tags_.empty()) fail("a second root");
    const std::string element = name();
    for (skip_space(); next() != '>' && next() != '/'; skip_space()) read_attribute();
    if (!skip("/")) open_.push_back(element);
    if (!skip(">")) fail("a tag without its end");
    tags_.push_back(xml_.substr(begin, at_ - begin));
  }

  void read_attribute() {
    name();
    if (!skip("=\"")) fail("an attribute without a value");
    while (next() != '"' && next() != '<' && at_ < xml_.size()) {
      open_.emplace_back();  // text may stand here
      read_character();
      open_.pop_back();
    }
    if (!skip("\"")) fail("a value without its end");
  }

  const std::string& xml_;
  size_t at_ = 0;
  std::vector<std::string> tags_, open_;
};

inline std::vector<std::string> tags_of_xml(const std::string& xml) {
  return XmlTags(xml).tags();
}

struct XmlAttribute {
  std::string name, value;
};

// The attributes of an opening tag as tags_of_xml gives it, in their order.
inline std::vector<XmlAttribute> attributes_of_tag(const std::string& tag) {
  std::vector<XmlAttribute> attributes;
  size_t begin = tag.find(' ');
  for (size_t value; (value = tag.find("=\"", begin)) != tag.npos; begin = tag.find('"', value + 2) + 1) {
    const size_t name = tag.find_first_not_of(" \n", begin);
    attributes.push_back({tag.substr(name, value - name), tag.substr(value + 2, tag.find('"', value + 2) - value - 2)});
  }
  return attributes;
}

}  // namespace mixtune
