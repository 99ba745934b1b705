#include "config/yaml.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <sstream>

#include "base/error.h"

namespace mixtune {

namespace {

constexpr size_t kMaxEntries = 10'000;  // keys and values
constexpr int kMaxDepth = 16;           // of values that a config cannot have

std::string place(std::string_view where, int line) {
  return fmt::format("{}:{}", where, line);
}

// Nothing of the document is kept but its entries, so that no alias or nesting can make it grow.
class FlatHandler : public YAML::EventHandler {
 public:
  explicit FlatHandler(std::string_view where) : where_(where) {}

  std::vector<YamlEntry> take() { return std::move(entries_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { scalar(mark, "?", anchor, "null"); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    fail(mark, "an alias (*name) is not allowed", "write the value out");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    scalar(mark, tag, anchor, value);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    check_plain(mark, tag, anchor);
    if (skipped_depth_ > 0 || !in_map_ || in_list() || expect_key_) return skip(mark);
    open_entry().is_list = true;
    ++lists_;
  }
  void OnSequenceEnd() override {
    if (skipped_depth_ > 0) return end_skipped();
    --lists_;
    expect_key_ = true;
  }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    check_plain(mark, tag, anchor);
    if (in_map_ && (skipped_depth_ > 0 || in_item_ || expect_key_)) return skip(mark);
    if (in_map_) start_item(mark);
    in_map_ = expect_key_ = true;
  }
  void OnMapEnd() override {
    if (skipped_depth_ > 0) return end_skipped();
    in_item_ = false;
    expect_key_ = !in_list();
  }

 private:
  [[noreturn]] void fail(const YAML::Mark& mark, std::string_view what, std::string_view mend) const {
    throw UserError(place(where_, mark.line + 1), what, mend);
  }

  [[noreturn]] void nested(const YAML::Mark& mark) const {
    fail(mark, in_map_ ? "nested values are not allowed" : "a config is a mapping of keys to values",
         "write one 'key: value' a line, and close every bracket");
  }

  // The entries of the innermost mapping, and its last.
  std::vector<YamlEntry>& open_entries() { return in_item_ ? entries_.back().mappings.back().entries : entries_; }
  YamlEntry& open_entry() { return open_entries().back(); }
  // Whether the value of open_entry() is a list.
  bool in_list() const { return lists_ > (in_item_ && entries_.back().is_list ? 1 : 0); }

  // A mapping begins that is a value, or an element of a list.
  void start_item(const YAML::Mark& mark) {
    count(mark);
    YamlEntry& entry = entries_.back();
    if (entry.nested_line == 0) entry.nested_line = mark.line + 1;
    entry.mappings.push_back({.line = mark.line + 1, .entries = {}});
    in_item_ = true;
  }

  void count(const YAML::Mark& mark) {
    if (++items_ > kMaxEntries) fail(mark, "too many keys or items", "this is not a config of mixtune");
  }

  // A list or a mapping that no value can be begins.
  void skip(const YAML::Mark& mark) {
    const bool is_value = in_map_ && !expect_key_;
    if (skipped_depth_ == kMaxDepth || (skipped_depth_ == 0 && !is_value)) nested(mark);
    for (int* line : {&entries_.back().nested_line, &entries_.back().left_out_line})
      if (*line == 0) *line = mark.line + 1;
    ++skipped_depth_;
  }

  void end_skipped() {
    if (--skipped_depth_ == 0) expect_key_ = !in_list();
  }

  void check_plain(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) const {
    if (anchor != 0) fail(mark, "an anchor (&name) is not allowed", "remove it");
    if (!tag.empty() && tag != "?" && tag != "!")
      fail(mark, fmt::format("the tag '{}' is not allowed", printable(tag)), "remove it");
  }

  void scalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, const std::string& value) {
    check_plain(mark, tag, anchor);
    if (skipped_depth_ > 0) return;
    if (!in_map_) nested(mark);
    if (expect_key_) {
      start_entry(mark, value);
      return;
    }
    count(mark);
    open_entry().values.push_back(value);
    expect_key_ = !in_list();
  }

  void start_entry(const YAML::Mark& mark, const std::string& key) {
    count(mark);
    std::vector<YamlEntry>& entries = open_entries();
    if (const auto first = std::ranges::find(entries, key, &YamlEntry::key); first != entries.end())
      fail(mark, fmt::format("the key '{}' is repeated", printable(key)),
           fmt::format("it stands in line {} already: keep one of the two", first->line));
    entries.push_back({.key = key, .values = {}, .mappings = {}, .line = mark.line + 1});
    expect_key_ = false;
  }

  std::string where_;
  std::vector<YamlEntry> entries_;
  bool in_map_ = false, in_item_ = false, expect_key_ = false;
  int lists_ = 0;  // that are open and kept: at most one, and one more within an item
  int skipped_depth_ = 0;
  size_t items_ = 0;
};

void check_encoding(std::string_view text, std::string_view where) {
  int line = 1;
  for (size_t begin = 0; begin < text.size(); ++line) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view content = text.substr(begin, end - begin);
    if (!is_utf8(content) || content.find('\0') != content.npos)
      throw UserError(place(where, line), "not UTF-8 text", "save the file as plain UTF-8");
    begin = end + 1;
  }
}

}  // namespace

std::vector<YamlEntry> parse_flat_yaml(std::string_view text, std::string_view where) {
  check_encoding(text, where);
  FlatHandler handler(where);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    parser.HandleNextDocument(handler);
    if (parser) throw UserError(where, "holds more than one YAML document", "keep one and remove the '---' lines");
  } catch (const YAML::Exception& error) {
    throw UserError(place(where, error.mark.line + 1), fmt::format("bad YAML: {}", printable(error.msg)),
                    "write one 'key: value' a line");
  }
  return handler.take();
}

}  // namespace mixtune
