// LineReader: the lines of a file that may be anybody's, one after the other, in bounded memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "base/file.h"

namespace mixtune {

struct Line {
  std::string text;      // without its end; "" where it is too long
  uint64_t end = 0;      // of the line in the file, its '\n' included: bytes
  bool is_whole = true;  // it has its '\n': the last one of a file that is cut has none
  bool is_too_long = false;
};

class LineReader {
 public:
  // The file outlives the reader. A line of more than `longest` bytes is not kept.
  LineReader(const InputFile& file, size_t longest) : file_(file), longest_(longest) {}

  // None at the end of the file, as it was when it was opened. Throws Error where it cannot be read.
  std::optional<Line> next();

 private:
  const InputFile& file_;
  const size_t longest_;
  std::string piece_;
  size_t at_ = 0;      // in the piece
  uint64_t read_ = 0;  // of the file
};

}  // namespace mixtune
