#include "data/jsonl.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"

namespace mixtune {

namespace {

using nlohmann::json;

constexpr const char* kOneObjectALine = "each line must be one whole JSON object: mend or remove this one";
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr size_t kReleaseBytes = size_t{4} << 20;  // mapped at a time

}  // namespace

json parse_json_line(std::string_view text, const std::string& where) {
  return parse_json_object(text, where, kOneObjectALine, kMaxJsonDepth);
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
  record = parse_json_line(text, where());
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
  release_read();
  const std::string_view rest = file_.bytes().substr(begin_);
  if (rest.empty()) return false;
  const std::string_view window = rest.substr(0, kMaxLineBytes + 1);
  line = window.substr(0, window.find('\n'));
  if (line.size() > kMaxLineBytes)
    throw UserError(place(line_ + 1), fmt::format("the line is longer than {}", format_bytes(kMaxLineBytes)),
                    kOneObjectALine);
  begin_ += std::min(line.size() + 1, rest.size());
  ++line_;
  return true;
}

void JsonlReader::release_read() {
  if (begin_ - released_ < kReleaseBytes) return;
  file_.release(std::as_bytes(std::span(file_.bytes().substr(released_, begin_ - released_))));
  released_ = begin_;
}

}  // namespace mixtune
