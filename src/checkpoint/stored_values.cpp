#include "checkpoint/stored_values.h"

#include "base/error.h"
#include "checkpoint/four_bit.h"

namespace mixtune {

uint64_t StoredValues::byte(int64_t place) const {
  MT_CHECK(four_bit == nullptr);
  return begin + place * dtype_size(dtype);
}

FileStretch StoredValues::stretch(int64_t place, int64_t count) const {
  if (four_bit == nullptr) return {&file->file(), byte(place), byte(place + count)};
  const FourBitTensor::Codes codes = four_bit->codes(first + place, count);
  return {&file->file(), begin + codes.begin, begin + codes.end};
}

std::span<const std::byte> StoredValues::values(int64_t place, int64_t count, std::span<const std::byte> bytes,
                                                std::vector<std::byte>& buffer) const {
  if (four_bit == nullptr) return bytes;
  four_bit->values(first + place, count, bytes, buffer);
  return buffer;
}

}  // namespace mixtune
