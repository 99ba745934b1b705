#include "data/byte_stream.h"

#include <fmt/format.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "data/foreign_data.h"

namespace mixtune {

namespace {

using std::string_view_literals::operator""sv;

constexpr std::string_view kGetAgain = "get or make the file again";

// Gives a file from its first byte to its last.
class FileBytes {
 public:
  explicit FileBytes(const InputFile& file) : file_(file) {}

  size_t read(std::span<char> buffer) {
    buffer = buffer.first(std::min<uint64_t>(buffer.size(), file_.size() - offset_));
    if (buffer.empty()) file_.check_unchanged();
    file_.read(offset_, std::as_writable_bytes(buffer));
    offset_ += buffer.size();
    return buffer.size();
  }

  uint64_t offset() const { return offset_; }
  std::string shown() const { return printable(file_.path(), 200); }
  const std::string& path() const { return file_.path(); }

 private:
  const InputFile& file_;
  uint64_t offset_ = 0;
};

class PlainStream : public ByteStream {
 public:
  explicit PlainStream(const InputFile& file) : bytes_(file) {}
  Compression compression() const override { return Compression::kNone; }

  size_t read(std::span<char> buffer) override {
    size_t filled = 0;
    for (size_t n = 1; n > 0 && filled < buffer.size(); filled += n) n = bytes_.read(buffer.subspan(filled));
    return filled;
  }

 private:
  FileBytes bytes_;
};

// A stream of compressed data: passes pieces of the file through `decompress` until the buffer is full.
class CompressedStream : public ByteStream {
 public:
  CompressedStream(const InputFile& file, std::string_view kind) : bytes_(file), kind_(kind) {}

  size_t read(std::span<char> buffer) override {
    size_t filled = 0;
    while (filled < buffer.size()) {
      const size_t n = decompress(buffer.subspan(filled));
      filled += n;
      if (n > 0 || !input_.empty()) continue;
      const size_t size = bytes_.read(piece_);
      if (size == 0 && !complete_)
        throw UserError(bytes_.shown(), fmt::format("the {} data is cut short at byte {}", kind_, bytes_.offset()),
                        kGetAgain);
      if (size == 0) break;
      input_ = std::span(piece_).first(size);
    }
    return filled;
  }

 protected:
  // Takes from the front of `input_`. Returns how many bytes `out` got, 0 where it needs more input. Sets `complete_`
  // by whether the data may end here.
  virtual size_t decompress(std::span<char> out) = 0;

  [[noreturn]] void corrupt(std::string_view why) const {
    throw UserError(
        bytes_.shown(),
        fmt::format("the {} data is damaged before byte {}: {}", kind_, bytes_.offset() - input_.size() + 1, why),
        kGetAgain);
  }

  FileBytes bytes_;
  std::span<char> input_;
  bool complete_ = true;

 private:
  std::string_view kind_;
  std::vector<char> piece_ = std::vector<char>(size_t{1} << 18);
};

class GzipStream : public CompressedStream {
 public:
  explicit GzipStream(const InputFile& file) : CompressedStream(file, "gzip") {
    constexpr int kGzipOnly = 16;
    MT_CHECK(inflateInit2(&inflater_, MAX_WBITS + kGzipOnly) == Z_OK);
  }
  ~GzipStream() override { inflateEnd(&inflater_); }
  Compression compression() const override { return Compression::kGzip; }

 private:
  size_t decompress(std::span<char> out) override {
    size_t made = 0;
    while (made == 0 && !input_.empty()) {
      inflater_.next_in = reinterpret_cast<Bytef*>(input_.data());
      inflater_.avail_in = static_cast<uInt>(input_.size());
      inflater_.next_out = reinterpret_cast<Bytef*>(out.data());
      const size_t room = std::min<size_t>(out.size(), size_t{1} << 30);
      inflater_.avail_out = static_cast<uInt>(room);
      const int status = inflate(&inflater_, Z_NO_FLUSH);
      input_ = input_.last(inflater_.avail_in);
      made = room - inflater_.avail_out;
      if (status != Z_OK && status != Z_STREAM_END) corrupt(inflater_.msg ? inflater_.msg : "incomplete");
      complete_ = status == Z_STREAM_END;
      if (complete_) MT_CHECK(inflateReset(&inflater_) == Z_OK);
    }
    return made;
  }

  z_stream inflater_ = {};
};

class ZstdStream : public CompressedStream {
 public:
  explicit ZstdStream(const InputFile& file) : CompressedStream(file, "zstd"), context_(ZSTD_createDStream()) {
    MT_CHECK(context_ != nullptr);
  }
  ~ZstdStream() override { ZSTD_freeDStream(context_); }
  Compression compression() const override { return Compression::kZstd; }

 private:
  // Is called without input, too, as the decoder may hold back what did not fit the buffer before.
  size_t decompress(std::span<char> out) override {
    if (input_.empty() && complete_) return 0;
    ZSTD_inBuffer in = {input_.data(), input_.size(), 0};
    ZSTD_outBuffer decoded = {out.data(), out.size(), 0};
    while (decoded.pos == 0) {
      const size_t status = ZSTD_decompressStream(context_, &decoded, &in);
      input_ = input_.last(in.size - in.pos);
      if (ZSTD_isError(status) != 0) refuse(status);
      complete_ = status == 0;
      if (in.pos == in.size) break;
    }
    return decoded.pos;
  }

  [[noreturn]] void refuse(size_t status) const {
    if (ZSTD_getErrorCode(status) != ZSTD_error_frameParameter_windowTooLarge) corrupt(ZSTD_getErrorName(status));
    throw UserError(
        bytes_.shown(), "the zstd data needs a window of more than 128 MiB",
        fmt::format("compress it anew: zstd -dc --long=31 {} | zstd -o NEW.zst", shell_word(bytes_.path())));
  }

  ZSTD_DStream* context_;
};

bool is_zstd(std::string_view head) {
  const bool skippable = head.size() == 4 && (head[0] & 0xF0) == 0x50 && head.substr(1) == "\x2A\x4D\x18"sv;
  return skippable || head == "\x28\xB5\x2F\xFD"sv;
}

}  // namespace

std::unique_ptr<ByteStream> open_byte_stream(const InputFile& file) {
  const std::string head = file.read(0, std::min<uint64_t>(file.size(), 4));
  if (head.starts_with("\x1F\x8B"sv)) return std::make_unique<GzipStream>(file);
  if (is_zstd(head)) return std::make_unique<ZstdStream>(file);
  return std::make_unique<PlainStream>(file);
}

}  // namespace mixtune
