#include "data/mask_counter.h"

#include <algorithm>
#include <bit>

#include "base/error.h"

namespace mixtune {

namespace {

// The number of ones among bits [begin, end) of the bytes.
int64_t ones(const uint8_t* bytes, int64_t begin, int64_t end) {
  int64_t count = 0;
  for (; begin < end && begin % 8 != 0; ++begin) count += bytes[begin / 8] >> (begin % 8) & 1;
  for (; begin + 8 <= end; begin += 8) count += std::popcount(bytes[begin / 8]);
  for (; begin < end; ++begin) count += bytes[begin / 8] >> (begin % 8) & 1;
  return count;
}

}  // namespace

void MaskCounter::fetch(int64_t byte) {
  if (byte >= first_ && byte < first_ + bytes_) return;
  const int64_t all = (reader_.tokens() + 7) / 8;
  MT_CHECK(byte >= 0 && byte < all);
  first_ = byte;
  bytes_ = std::min(static_cast<int64_t>(block_.size()), all - byte);
  reader_.mask_bytes(first_, block_.first(static_cast<size_t>(bytes_)));
}

int64_t MaskCounter::count(int64_t begin, int64_t count) {
  int64_t trained = 0;
  for (const int64_t end = begin + count; begin < end;) {
    fetch(begin / 8);
    const int64_t here = std::min(end, 8 * (first_ + bytes_));
    trained += ones(block_.data(), begin - 8 * first_, here - 8 * first_);
    begin = here;
  }
  return trained;
}

}  // namespace mixtune
