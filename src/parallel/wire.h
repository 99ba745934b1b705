// The wire between the ranks of a job and its coordinator: frames of a bounded size over TCP.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/file.h"

namespace mixtune {

using SteadyTime = std::chrono::steady_clock::time_point;

constexpr std::string_view kWireMagic = "mixtune coordinator 1";
constexpr size_t kMaxFrame = 1 << 20;     // bytes after the length, of a frame of a rank
constexpr size_t kMaxHello = 512;         // and of a connection that has not said yet what it is
constexpr size_t kMaxWireText = 4 << 10;  // longer messages are cut

enum class FrameKind : uint8_t {
  kHello = 1,  // magic, token, rank, size, Purpose
  kWelcome,
  kRefused,  // why
  kSet,      // key, value
  kGet,      // key, milliseconds to wait
  kValue,    // value
  kExpired,  // which ranks have not joined
  kBeat,     // Beat
  kReport,   // message, exit code
  kGoodbye,
  kDone,
  kFailed,  // Failure
};

// What a connection is for. A rank is lost when that of its heartbeats ends.
enum class Purpose : int64_t { kValues, kHeartbeats };

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

// Reads the fields of a frame in their order; throws Error where they are not there.
class FrameReader {
 public:
  explicit FrameReader(std::string_view body);
  FrameKind kind() const { return kind_; }
  int64_t number();
  int number_within(int lowest, int highest);
  std::string text();

 private:
  std::string_view take(size_t size);

  std::string_view rest_;
  FrameKind kind_;
};

// The body of the frame that `bytes` start with, once it is whole. Throws Error where it is larger than `limit`.
std::optional<std::string_view> first_frame(std::string_view bytes, size_t limit);
constexpr size_t kFrameHead = 4;

// A socket that listens; an empty host stands for all addresses of this machine, port 0 for any free one.
Fd listen_at(const std::string& host, int port);
int port_of(const Fd& listener);

// A connected socket. Throws Error, which says why in `what`, where there is none before the deadline.
Fd connect_to(const std::string& host, int port, SteadyTime deadline);

// Both throw Error where the connection ends or the deadline passes.
void send_frame(const Fd& socket, const std::string& frame, SteadyTime deadline);
std::string receive_frame(const Fd& socket, SteadyTime deadline);

}  // namespace mixtune
