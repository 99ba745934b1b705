#include "data/record_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "data/foreign_data.h"
#include "data/object_scanner.h"

namespace mixtune {

namespace {

using nlohmann::ordered_json;

constexpr const char* kOneObject = "each record must be one whole JSON object: mend or remove this one";
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::string_view kBlanks = " \t\r", kWhiteSpace = " \t\r\n";
constexpr size_t kReadBytes = size_t{1} << 20;  // at a time

}  // namespace

ordered_json parse_json_line(std::string_view text, const std::string& where) {
  return parse_ordered_json_object(text, where, kOneObject, kMaxJsonDepth);
}

RecordReader::RecordReader(const std::string& path) : file_(path), stream_(open_byte_stream(file_)) {
  fill();
  if (const auto foreign = foreign_content(path, buffer_, stream_->compression()))
    throw UserError(printable(path, 200), foreign->what, foreign->mend);
  if (buffer_.starts_with(kByteOrderMark)) begin_ = kByteOrderMark.size();
}

std::string RecordReader::place(int64_t number) const {
  return fmt::format("{}:{}{}", printable(file_.path(), 200), is_array_ ? " record " : "", number);
}

void RecordReader::check_length(size_t size) const {
  if (size > kMaxRecordBytes)
    throw UserError(
        place(number_ + 1),
        fmt::format("the {} is longer than {}", is_array_ ? "record" : "line", format_bytes(kMaxRecordBytes)),
        kOneObject);
}

bool RecordReader::next(ordered_json& record) {
  std::string_view text;
  if (!next_text(text)) return false;
  record = parse_json_line(text, where());
  return true;
}

bool RecordReader::next_text(std::string_view& text) {
  const bool first = !begun_;
  if (first) begin();
  if (is_array_) return next_element(text);
  do {
    if (!next_line(text)) return false;
  } while (text.find_first_not_of(kBlanks) == text.npos);
  if (first) check_whole_object(text);
  return true;
}

// Goes to the first record, or into the array.
void RecordReader::begin() {
  begun_ = true;
  do {
    for (; begin_ < buffer_.size() && kWhiteSpace.find(buffer_[begin_]) != kWhiteSpace.npos; ++begin_)
      number_ += buffer_[begin_] == '\n';
  } while (begin_ == buffer_.size() && fill());
  if (begin_ == buffer_.size() || buffer_[begin_] != '[') return;
  is_array_ = true;
  ++begin_;
  number_ = 0;
}

// Checks the first line of a file that may be one object over several lines, as pretty printers break them.
void RecordReader::check_whole_object(std::string_view line) const {
  const size_t last = line.find_last_not_of(kBlanks);
  const bool more = buffer_.find_first_not_of(kWhiteSpace, begin_) != buffer_.npos;
  if (line.find_first_not_of(kBlanks) != line.find('{') || std::string_view("{[,").find(line[last]) > 2 || !more)
    return;
  throw UserError(place(number_), "the JSON object goes on in the next line",
                  fmt::format("write one record a line: jq -c . {} > data.jsonl", shell_word(file_.path())));
}

bool RecordReader::next_line(std::string_view& line) {
  size_t end = buffer_.npos;
  for (size_t seen = 0;;) {
    const size_t length = buffer_.size() - begin_;
    end = buffer_.find('\n', begin_ + seen);
    check_length(std::min(end, buffer_.size()) - begin_);
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
  ++number_;
  return true;
}

char RecordReader::next_token() {
  for (;;) {
    begin_ = std::min(buffer_.find_first_not_of(kWhiteSpace, begin_), buffer_.size());
    if (begin_ < buffer_.size()) return buffer_[begin_];
    if (!fill()) return '\0';
  }
}

void RecordReader::fail_in_array(char found, std::string_view expected) const {
  const std::string file = printable(file_.path(), 200);
  const std::string after = number_ == 0 ? "" : fmt::format(" after record {}", number_);
  if (begin_ == buffer_.size())
    throw UserError(file, fmt::format("the array does not end{}", after),
                    "the file is cut short: get or make it again");
  throw UserError(file, fmt::format("there is '{}'{}, not {}", printable(std::string_view(&found, 1)), after, expected),
                  "mend the array there");
}

bool RecordReader::end_array() {
  ended_ = true;
  ++begin_;
  next_token();
  if (begin_ < buffer_.size())
    throw UserError(printable(file_.path(), 200), "something follows the array of records",
                    "a file is one array, or has one record a line: remove what follows");
  return false;
}

bool RecordReader::next_element(std::string_view& text) {
  if (ended_) return false;
  char token = next_token();
  if (token == ']') return end_array();
  if (number_ > 0) {
    if (token != ',') fail_in_array(token, "a comma or the array's end");
    ++begin_;
    token = next_token();
  }
  if (token == ']' || begin_ == buffer_.size()) fail_in_array(token, "a record");
  if (token != '{') throw UserError(place(number_ + 1), "is not a JSON object", kOneObject);

  text = scan_object();
  begin_ += text.size();
  ++number_;
  return true;
}

std::string_view RecordReader::scan_object() {
  ObjectScanner scanner;
  size_t seen = 0, size = 0;
  do {
    size = scanner.scan(std::string_view(buffer_).substr(begin_ + seen));
    seen = size == buffer_.npos ? buffer_.size() - begin_ : seen + size;
    check_length(seen);
  } while (size == buffer_.npos && fill());
  const std::string_view text = std::string_view(buffer_).substr(begin_, seen);
  if (size == text.npos || scanner.in_string()) parse_json_line(text, place(number_ + 1));  // says what is wrong
  return text;
}

// Drops the used part of the buffer, and reads on.
bool RecordReader::fill() {
  buffer_.erase(0, begin_);
  begin_ = 0;
  const size_t kept = buffer_.size();
  buffer_.resize(kept + kReadBytes);
  const size_t size = stream_->read(std::span(buffer_).subspan(kept));
  buffer_.resize(kept + size);
  return size > 0;
}

}  // namespace mixtune
