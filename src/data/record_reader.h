// RecordReader: the JSON objects of a data file, one a line (JSONL) or the elements of one array.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/file.h"
#include "base/json_value.h"
#include "data/byte_stream.h"

namespace mixtune {

constexpr size_t kMaxRecordBytes = size_t{64} << 20;
constexpr int kMaxJsonDepth = 64;

// Parses the JSON object that one record is. Throws UserError (at `where`) for any other text, and for invalid UTF-8, a
// NUL byte, a repeated key or nesting deeper than kMaxJsonDepth.
nlohmann::ordered_json parse_json_line(std::string_view text, const std::string& where);

// Reads a file once, from its first byte to its last, compressed or not, in the memory of its longest record and a
// little. The content tells what the file is. Blank lines, CRLF, UTF-8's byte order mark and a last line without an end
// are fine. A fault of a record is a UserError that names it; a file that changes before its end is reached is an
// Error.
class RecordReader {
 public:
  // Throws UserError where the path is no file, or its content cannot be JSON in UTF-8, with the command that converts
  // it.
  explicit RecordReader(const std::string& path);

  // Reads the next record into `record`. Returns false at the end of the file.
  bool next(nlohmann::ordered_json& record);
  // Gives the text of the next record: not blank, valid until the next call.
  bool next_text(std::string_view& text);

  // The place of the latest record: "file.jsonl:12" by its line, "file.json: record 12" in an array; both from 1.
  std::string where() const { return place(number_); }

 private:
  std::string place(int64_t number) const;
  void check_length(size_t size) const;
  void begin();
  bool next_line(std::string_view& line);
  bool next_element(std::string_view& text);
  void check_whole_object(std::string_view line) const;
  char next_token();  // the next that is no white space; NUL at the end, or where there is one
  [[noreturn]] void fail_in_array(char found, std::string_view expected) const;
  bool end_array();
  std::string_view scan_object();  // the object that begins at begin_
  bool fill();                     // false: all of the file is in the buffer, or was

  InputFile file_;
  std::unique_ptr<ByteStream> stream_;
  std::string buffer_;  // the content, up to where the stream is
  size_t begin_ = 0;    // the first byte that is not used yet
  int64_t number_ = 0;  // of the latest line or element
  bool begun_ = false, is_array_ = false, ended_ = false;
};

}  // namespace mixtune
