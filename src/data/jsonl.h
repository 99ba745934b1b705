// JsonlReader: the records of a JSONL file, one JSON object a line.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/file.h"

namespace mixtune {

constexpr size_t kMaxLineBytes = size_t{64} << 20;
constexpr int kMaxJsonDepth = 64;

// Parses the JSON object of one line. Throws UserError (at `where`) for anything else, and for invalid UTF-8, a
// repeated key or nesting deeper than kMaxJsonDepth.
nlohmann::ordered_json parse_json_line(std::string_view text, const std::string& where);

// Reads a file once, from its first byte to its last: memory is that of the longest line, and a little. Blank lines,
// CRLF, a byte order mark and a last line without an end are fine. What is wrong with a line is a UserError that names
// it; a file that changes before its end is reached is an Error.
class JsonlReader {
 public:
  explicit JsonlReader(const std::string& path) : file_(path) {}

  // The next record goes to `record`; false at the end of the file.
  bool next(nlohmann::ordered_json& record);
  // The same before it is parsed: a line that is not blank, valid until the next call.
  bool next_text(std::string_view& text);

  int64_t line() const { return line_; }  // of the latest record, from 1
  std::string where() const;              // "file.jsonl:12"

 private:
  std::string place(int64_t line) const;
  bool next_line(std::string_view& line);
  bool fill();  // false: all of the file is in the buffer, or was

  InputFile file_;
  std::string buffer_;  // of the file, up to byte read_
  uint64_t read_ = 0;
  size_t begin_ = 0;  // of the next line in the buffer
  int64_t line_ = 0;
};

}  // namespace mixtune
