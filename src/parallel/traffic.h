// Traffic: how often, how much and how long a rank talks to others, by what is moved.
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
    double exposed_seconds = 0;  // in which this rank did nothing else: of operations in the lane, the waits for them
  };

  // Forgets, and counts from now on until stop(). A name that is new allocates, and so none after the first step.
  void start();
  void stop() { counting_ = false; }

  // Around an operation, or a wait for the lane (bytes: kWait).
  void begin(Ctx& ctx, const char* what, int64_t bytes);
  void end();

  // Of everything; of these names together. Times are those of what is past: on a GPU, after the host has waited, all
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
  std::unique_ptr<StampClock> clock_;  // of the first ctx
  std::vector<Entry> entries_;
  std::vector<Span> spans_;  // whose times are not added yet
};

// `communicator`, and what is split from it, counted in `traffic`, which outlives them. A group of one has none.
std::unique_ptr<Communicator> with_traffic(std::unique_ptr<Communicator> communicator, Traffic& traffic);

}  // namespace mixtune
