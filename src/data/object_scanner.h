// ObjectScanner: finds where a JSON object ends in text that comes piece by piece.
#pragma once

#include <cstddef>
#include <string_view>

namespace mixtune {

// Counts brackets outside strings, of either kind, and leaves faults to the parser. A control character within a
// string, which JSON forbids, ends the object too: a missing quote is found where it is missing.
class ObjectScanner {
 public:
  // Goes through the next piece of a text that begins with '{'. Returns the number of its bytes up to the object's end,
  // inclusive; npos: the object goes on in the next piece.
  size_t scan(std::string_view piece) {
    for (size_t i = 0; i < piece.size(); ++i)
      if (ends(piece[i])) return i + 1;
    return std::string_view::npos;
  }

  bool in_string() const { return in_string_; }

 private:
  bool ends(char c) {
    if (in_string_) {
      if (static_cast<unsigned char>(c) < 0x20) return true;
      if (escaped_)
        escaped_ = false;
      else if (c == '\\')
        escaped_ = true;
      else if (c == '"')
        in_string_ = false;
      return false;
    }
    if (c == '"')
      in_string_ = true;
    else if (c == '{' || c == '[')
      ++depth_;
    else if (c == '}' || c == ']')
      return --depth_ == 0;
    return false;
  }

  size_t depth_ = 0;
  bool in_string_ = false, escaped_ = false;
};

}  // namespace mixtune
