#include "metrics/png.h"

#include <zlib.h>

#include "base/error.h"

namespace mixtune {

namespace {

void put_u32(std::string& out, uint64_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift & 0xFF);
}

uLong crc_of(std::string_view bytes) {
  return crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(bytes.size()));
}

// Its length, its type and bytes, and the checksum of these.
void put_chunk(std::string& out, std::string_view type, std::string_view bytes) {
  const std::string checked = std::string(type) + std::string(bytes);
  put_u32(out, bytes.size());
  out += checked;
  put_u32(out, crc_of(checked));
}

std::string compressed(std::string_view bytes) {
  std::string out(compressBound(bytes.size()), 0);
  uLongf size = out.size();
  MT_CHECK(compress(reinterpret_cast<Bytef*>(out.data()), &size, reinterpret_cast<const Bytef*>(bytes.data()),
                    bytes.size()) == Z_OK);
  out.resize(size);
  return out;
}

}  // namespace

std::string png_of(int64_t width, int64_t height, std::string_view pixels) {
  const auto row = static_cast<size_t>(3 * width);
  MT_CHECK(width > 0 && height > 0 && pixels.size() == row * static_cast<size_t>(height));
  std::string head, rows, out = "\x89PNG\r\n\x1A\n";
  put_u32(head, static_cast<uint64_t>(width));
  put_u32(head, static_cast<uint64_t>(height));
  head += std::string("\x08\x02\0\0\0", 5);  // 8 bits a colour, RGB, the one compression and filtering, not interlaced
  for (size_t at = 0; at < pixels.size(); at += row) {
    rows += '\0';  // as they are
    rows += pixels.substr(at, row);
  }
  put_chunk(out, "IHDR", head);
  put_chunk(out, "IDAT", compressed(rows));
  put_chunk(out, "IEND", "");
  return out;
}

}  // namespace mixtune
