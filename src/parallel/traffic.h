// Traffic: how often, how much and how long a rank talks to others, for each name of what is moved.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string_view>
#include <vector>

#include "parallel/communicator.h"
#include "tensor/profiler.h"

namespace mixtune {

class Traffic {
 public:
  struct Sum {
    int64_t calls = 0;
    int64_t bytes = 0;           // sent by this rank to others (wrapped_communicator.h)
    double seconds = 0;          // of the operations, waiting for others included
    double exposed_seconds = 0;  // time in which this rank did nothing else; in the lane: the waits for it
  };

  // Forgets, and counts from now on until stop(). A new name allocates: after the first step there is none.
  void start();
  void stop() { counting_ = false; }
  // Stops, and forgets the ctx: before that goes, so that the same ranks may go on with another.
  void forget_ctx();

  // Enclose an operation, or a wait for the lane (bytes: kWait).
  void begin(Ctx& ctx, const char* what, int64_t bytes);
  void end();

  // The sum over all names, or over these. Times are those of what is past: on a GPU, after the host has waited, all
  // but what the lane still holds.
  Sum all();
  Sum of(std::initializer_list<std::string_view> names);

 private:
  struct Entry {
    const char* what;
    Sum sum;
  };
  struct Span {
    size_t entry;
    int from, to;  // stamps
    bool operation, exposed;
  };
  size_t entry_of(const char* what);
  void add_times();

  bool counting_ = false, inside_ = false;
  std::unique_ptr<StampClock> clock_;  // of the ctx
  std::vector<Entry> entries_;
  std::vector<Span> spans_;  // times not added yet
};

// Counts `communicator`, and what is split from it, in `traffic`, which outlives them. A group of one is not counted.
std::unique_ptr<Communicator> with_traffic(std::unique_ptr<Communicator> communicator, Traffic& traffic);

}  // namespace mixtune
