// Pieces of SVG and HTML, as XML has them.
#pragma once

#include <string>
#include <string_view>

namespace mixtune {

// As XML holds it between tags and in quotes, whatever the text was: what is no UTF-8, and control characters but the
// end of a line, become '?'.
std::string xml_text(std::string_view text);

struct SvgPoint {
  double x, y;
};

// "<text ...>" with these classes; the baseline of its beginning, middle or end (as the classes say) is at `place`.
std::string text_at(SvgPoint place, std::string_view style, std::string_view text);

// The `d` of a path, to a tenth of a unit.
class PathData {
 public:
  void move(SvgPoint place) { add('M', place); }
  void line(SvgPoint place) { add('L', place); }
  void dot(SvgPoint place);  // round, where the line's ends are
  void close() { data_ += 'Z'; }

  bool empty() const { return data_.empty(); }
  const std::string& str() const { return data_; }
  std::string element(std::string_view style) const;  // "<path ...>"; "" of an empty one

 private:
  void add(char command, SvgPoint place);

  std::string data_;
};

}  // namespace mixtune
