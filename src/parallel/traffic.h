// Traffic: how often, how much and how long a rank talks to others, by what is moved.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string_view>
#include <vector>

#include "parallel/communicator.h"

namespace mixtune {

class Traffic {
 public:
  struct Sum {
    int64_t calls = 0;
    int64_t bytes = 0;   // sent by this rank to others (wrapped_communicator.h)
    double seconds = 0;  // until the call returned, waiting for others included
  };

  // Allocates for a name that is new, and so not after the first step.
  void add(const char* what, const Sum& sum);
  // Of everything; of these names together.
  Sum all() const;
  Sum of(std::initializer_list<std::string_view> names) const;
  void clear();

 private:
  struct Entry {
    const char* what;
    Sum sum;
  };
  std::vector<Entry> entries_;
};

// `communicator`, and what is split from it, counted in `traffic`, which outlives them. A group of one has none.
std::unique_ptr<Communicator> with_traffic(std::unique_ptr<Communicator> communicator, Traffic& traffic);

}  // namespace mixtune
