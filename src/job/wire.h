// The frames that the ranks of a job and its coordinator send each other, of a bounded size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"

namespace mixtune {

constexpr std::string_view kWireMagic = "mixtune coordinator 2";
constexpr size_t kFrameHead = 4;          // the length of a frame
constexpr size_t kMaxFrame = 1 << 20;     // the most bytes after it, from a rank
constexpr size_t kMaxHello = 256;         // and from a connection that has not proven itself yet
constexpr size_t kMaxWireText = 4 << 10;  // longer messages are cut

// A rank says hello, is challenged, proves that it knows the job's token, and is welcomed with a proof of the same
// (handshake.h). From then on it asks and is answered, one question at a time.
enum class FrameKind : uint8_t {
  kHello = 1,  // magic, rank, size, Purpose, nonce
  kChallenge,  // nonce
  kProof,      // proof
  kWelcome,    // proof
  kRefused,    // why: about the rank's hello, or its value
  kSet,        // key, value
  kGet,        // whose value, key, milliseconds to wait
  kValue,      // value
  kExpired,    // which ranks have not joined
  kBeat,       // Beat
  kHeard,      // whether a rank that this one may wait for advances
  kReport,     // exit code, message
  kGoodbye,
  kDone,
  kFailed,  // Failure
};

// What goes wrong on a connection, without the place that its caller adds.
Error wire_error(std::string_view what);

// A frame: its length in 4 bytes, its kind in one, then its fields. Integers are little-endian.
class FrameWriter {
 public:
  explicit FrameWriter(FrameKind kind);
  FrameWriter& number(int64_t value);
  FrameWriter& text(std::string_view value);
  const std::string& frame();

 private:
  std::string bytes_;
};

// Reads the fields of a frame in their order. Throws Error where one is not there.
class FrameReader {
 public:
  explicit FrameReader(std::string_view body);
  FrameKind kind() const { return kind_; }
  int64_t number();
  int number_within(int lowest, int highest);
  std::string text();
  void end() const;  // throws unless all is read

 private:
  std::string_view take(size_t size);

  std::string_view rest_;
  FrameKind kind_;
};

// The number of bytes that follow the head of a frame.
size_t frame_size(std::string_view head);
// The body of the first frame in `bytes`, once it is whole. Throws Error where it is larger than `limit`.
std::optional<std::string_view> first_frame(std::string_view bytes, size_t limit);

}  // namespace mixtune
