#include "base/lines.h"

#include <algorithm>

namespace mixtune {

std::optional<Line> LineReader::next() {
  constexpr uint64_t kPieceOfLines = 1 << 20;
  Line line;
  for (bool begun = false;; begun = true) {
    if (at_ == piece_.size()) {
      line.is_whole = false;
      line.end = read_;
      if (read_ == file_.size()) return begun ? std::optional(line) : std::nullopt;
      piece_ = file_.read(read_, std::min(kPieceOfLines, file_.size() - read_));
      read_ += piece_.size();
      at_ = 0;
    }
    const size_t end = std::min(piece_.find('\n', at_), piece_.size());
    line.is_too_long = line.is_too_long || line.text.size() + (end - at_) > longest_;
    if (line.is_too_long)
      line.text.clear();
    else
      line.text.append(piece_, at_, end - at_);
    at_ = std::min(end + 1, piece_.size());
    line.end = read_ - (piece_.size() - at_);
    line.is_whole = end < piece_.size();
    if (line.is_whole) return line;
  }
}

}  // namespace mixtune
