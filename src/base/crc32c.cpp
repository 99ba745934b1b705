#include "base/crc32c.h"

#include <array>

namespace mixtune {

namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;  // its bits in reverse

// What a byte that leaves the register does to the rest.
constexpr std::array<uint32_t, 256> make_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < table.size(); ++byte) {
    uint32_t bits = byte;
    for (int i = 0; i < 8; ++i) bits = (bits >> 1) ^ (bits & 1 ? kPolynomial : 0);
    table[byte] = bits;
  }
  return table;
}

constexpr std::array<uint32_t, 256> kTable = make_table();

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t bits = ~uint32_t{0};
  for (const char byte : bytes) bits = (bits >> 8) ^ kTable[(bits ^ static_cast<unsigned char>(byte)) & 0xFF];
  return ~bits;
}

}  // namespace mixtune
