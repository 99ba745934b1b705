// Profiler: when each part of a step began and ended. Range: one such part, for the profiler and for NVTX.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "tensor/ctx.h"

namespace mixtune {

// Reads the time: from events in a GPU's stream, or from the host's clock.
class StampClock {
 public:
  virtual ~StampClock() = default;
  virtual int stamp() = 0;                            // now; counts from 0
  virtual double milliseconds(int from, int to) = 0;  // between two stamps that are past
  virtual bool is_past(int stamp) = 0;                // a GPU's stamps before a wait() are
  virtual void reset() = 0;                           // forgets all stamps
};
std::unique_ptr<StampClock> make_stamp_clock(Ctx& ctx);

class Profiler {
 public:
  explicit Profiler(Ctx& ctx) : clock_(make_stamp_clock(ctx)) {}

  struct Part {
    std::string name;
    int depth;
    double begin, duration;  // milliseconds; begin counts from start()
  };

  void start();
  void begin(const char* name);
  void end();
  // The parts that ran since start(), in the order of their beginning. Waits for the device.
  std::vector<Part> collect(Ctx& ctx);

 private:
  struct Mark {
    const char* name;
    int depth, begin, end;
  };
  std::unique_ptr<StampClock> clock_;
  std::vector<Mark> marks_;
  std::vector<size_t> open_;
};

// For a scope: an NVTX range on a GPU, and a part in the ctx's profiler where it has one. `name` outlives the profiler.
class Range {
 public:
  Range(Ctx& ctx, const char* name);
  ~Range();
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;

 private:
  Ctx& ctx_;
};

}  // namespace mixtune
