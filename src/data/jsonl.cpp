#include "data/jsonl.h"

#include <fmt/format.h>

#include <cstring>

#include "base/error.h"
#include "base/log.h"

namespace mixtune {

namespace {

using nlohmann::json;

constexpr const char* kOneObjectALine = "each line must be one whole JSON object";
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

// "[json.exception.parse_error.101] parse error at line 1, column 9: syntax error ...": the library's words without
// its own names and places.
std::string reason(std::string_view message) {
  for (const std::string_view before : {"column ", "] "}) {
    size_t at = message.find(before);
    if (at == message.npos) continue;
    if (before == "column ") at = message.find(": ", at);
    if (at != message.npos) return printable(message.substr(at + 2), 160);
  }
  return printable(message, 160);
}

// Builds a json value, with the checks that the library leaves out.
class StrictBuilder : public nlohmann::json_sax<json> {
 public:
  StrictBuilder(json& root, const std::string& where) : root_(root), where_(where) {}

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return false; }

  bool start_object(std::size_t) override { return open(json::object()); }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override {
    if (open_.empty()) fail("is not a JSON object");
    return open(json::array());
  }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    const auto [at, is_new] = open_.back()->emplace(name, nullptr);
    if (!is_new) fail(fmt::format("the key '{}' is repeated", printable(name)), "keep one of them");
    member_ = &*at;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const json::exception& error) override {
    fail(fmt::format("not valid JSON at byte {}: {}", position, reason(error.what())));
  }

 private:
  [[noreturn]] void fail(const std::string& what, const char* mend = kOneObjectALine) {
    throw UserError(where_, what, mend);
  }

  bool open(json container) {
    if (open_.size() == kMaxJsonDepth) fail(fmt::format("nested deeper than {} levels", kMaxJsonDepth), "flatten it");
    open_.push_back(place(std::move(container)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  bool put(json value) {
    if (open_.empty()) fail("is not a JSON object");
    place(std::move(value));
    return true;
  }

  json* place(json value) {
    if (open_.empty()) return &(root_ = std::move(value));
    if (open_.back()->is_array()) return &open_.back()->emplace_back(std::move(value));
    return &(*member_ = std::move(value));
  }

  json& root_;
  const std::string& where_;
  std::vector<json*> open_;  // stable: a container is not touched while one inside it is open
  json* member_ = nullptr;   // where the value of the latest key goes
};

}  // namespace

json parse_json_object(std::string_view text, const std::string& where) {
  json record;
  StrictBuilder builder(record, where);
  json::sax_parse(text.begin(), text.end(), &builder);
  return record;
}

std::string JsonlReader::place(int64_t line) const {
  return fmt::format("{}:{}", printable(file_.path(), 200), line);
}

std::string JsonlReader::where() const {
  return place(line_);
}

bool JsonlReader::next(json& record) {
  std::string_view text;
  if (!next_text(text)) return false;
  record = parse_json_object(text, where());
  return true;
}

bool JsonlReader::next_text(std::string_view& text) {
  while (next_line(text)) {
    if (line_ == 1 && text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
    if (text.find_first_not_of(" \t\r") != text.npos) return true;
  }
  return false;
}

bool JsonlReader::next_line(std::string_view& line) {
  size_t scanned = begin_;
  for (;;) {
    const auto* newline = static_cast<const char*>(std::memchr(buffer_.data() + scanned, '\n', end_ - scanned));
    const size_t stop = newline ? static_cast<size_t>(newline - buffer_.data()) : end_;
    if (stop - begin_ > kMaxLineBytes)
      throw UserError(place(line_ + 1), fmt::format("the line is longer than {}", format_bytes(kMaxLineBytes)),
                      kOneObjectALine);
    if (newline || at_end_) {
      if (begin_ == end_) return false;
      line = {buffer_.data() + begin_, stop - begin_};
      begin_ = newline ? stop + 1 : stop;
      ++line_;
      return true;
    }
    scanned = end_ - begin_;
    refill();
  }
}

void JsonlReader::refill() {
  std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
  end_ -= begin_;
  begin_ = 0;
  if (end_ == buffer_.size()) buffer_.resize(2 * buffer_.size());
  const size_t n = file_.read(buffer_.data() + end_, buffer_.size() - end_);
  at_end_ = n == 0;
  end_ += n;
}

}  // namespace mixtune
