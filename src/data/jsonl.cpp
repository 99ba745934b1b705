#include "data/jsonl.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"

namespace mixtune {

namespace {

constexpr const char* kOneObjectALine = "each line must be one whole JSON object: mend or remove this one";
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr uint64_t kReadBytes = uint64_t{1} << 20;  // at a time

}  // namespace

nlohmann::ordered_json parse_json_line(std::string_view text, const std::string& where) {
  return parse_ordered_json_object(text, where, kOneObjectALine, kMaxJsonDepth);
}

std::string JsonlReader::place(int64_t line) const {
  return fmt::format("{}:{}", printable(file_.path(), 200), line);
}

std::string JsonlReader::where() const {
  return place(line_);
}

bool JsonlReader::next(nlohmann::ordered_json& record) {
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
  size_t end = buffer_.npos;
  for (size_t seen = 0;;) {
    const size_t length = buffer_.size() - begin_;
    end = buffer_.find('\n', begin_ + seen);
    if (std::min(end, buffer_.size()) - begin_ > kMaxLineBytes)
      throw UserError(place(line_ + 1), fmt::format("the line is longer than {}", format_bytes(kMaxLineBytes)),
                      kOneObjectALine);
    if (end != buffer_.npos) break;
    if (!fill()) {
      if (length == 0) return false;
      end = buffer_.size();
      break;
    }
    seen = length;
  }
  line = std::string_view(buffer_).substr(begin_, end - begin_);
  begin_ = std::min(end + 1, buffer_.size());
  ++line_;
  return true;
}

// What was used of the buffer goes.
bool JsonlReader::fill() {
  const uint64_t size = std::min(kReadBytes, file_.size() - read_);
  if (size == 0) {
    file_.check_unchanged();
    return false;
  }
  buffer_.erase(0, begin_);
  begin_ = 0;
  const size_t kept = buffer_.size();
  buffer_.resize(kept + size);
  file_.read(read_, std::as_writable_bytes(std::span(buffer_)).subspan(kept));
  read_ += size;
  return true;
}

}  // namespace mixtune
