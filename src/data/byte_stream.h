// ByteStream: the bytes of a file in their order, decompressed where its first bytes say that it is compressed.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "base/file.h"

namespace mixtune {

enum class Compression { kNone, kGzip, kZstd };

class ByteStream {
 public:
  virtual ~ByteStream() = default;
  virtual Compression compression() const = 0;
  // Fills `buffer` from its front. Returns how many bytes it got: fewer than it holds only at the end, and 0 from there
  // on. Throws UserError for compressed data that is damaged or cut short; Error for a file that changes before its end
  // is reached.
  virtual size_t read(std::span<char> buffer) = 0;
};

// Gzip may have several members, Zstandard several frames, one after the other. Memory does not grow with the file: it
// is at most 128 MiB, the largest window of Zstandard that is taken. `file` outlives the stream.
std::unique_ptr<ByteStream> open_byte_stream(const InputFile& file);

}  // namespace mixtune
