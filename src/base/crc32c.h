// CRC-32C, with Castagnoli's polynomial, as iSCSI has it (RFC 3720): finds damage, and proves nothing to an adversary.
#pragma once

#include <cstdint>
#include <string_view>

namespace mixtune {

uint32_t crc32c(std::string_view bytes);

}  // namespace mixtune
