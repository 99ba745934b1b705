// Event files, which TensorBoard reads: framed messages, each a protobuf Event. What is written and read here are the
// few fields that a run's numbers need.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"

namespace mixtune {

inline constexpr std::string_view kEventWriter = "mixtune";

struct Scalar {
  std::string tag;
  float value = 0;
};

// Messages, of the time `wall` in seconds since 1970.
// The first of each file: it names the format, and mixtune as the file's writer.
std::string opening_event(double wall);
// The next, of a run that begins or goes on at `step`: TensorBoard drops what it has of that and later steps from files
// before, if they have such an event too.
std::string session_event(double wall, int64_t step);
// How many there are of each of 0, 1, 2, ...: a histogram with a bucket for each, from the first that is not empty to
// the last.
struct Counts {
  std::string tag;
  std::vector<double> of;
};
// RGB, 3 bytes a pixel, row by row.
struct Picture {
  std::string tag;
  int64_t width = 0, height = 0;
  std::string pixels;
};
std::string summary_event(double wall, int64_t step, std::span<const Scalar> scalars,
                          std::span<const Counts> counts = {}, const Picture* picture = nullptr);

// A message as it is in a file: u64 length, u32 checksum of that, the message, u32 checksum of it; little-endian.
std::string framed(std::string_view message);

struct Event {
  int64_t step = 0;
  std::string writer;   // of the file; "" in all but its first event
  std::string message;  // all of it
};

// Reads the events of a file that may be anybody's, in their order.
class EventReader {
 public:
  // The file outlives the reader.
  explicit EventReader(const InputFile& file) : file_(file) {}

  // None where the file ends, or goes on with what is no whole event: cut, damaged, or larger than any of a run. Throws
  // Error where the file cannot be read.
  std::optional<Event> next();
  uint64_t end() const { return end_; }  // of what was read: bytes

 private:
  const InputFile& file_;
  uint64_t end_ = 0;
};

}  // namespace mixtune
