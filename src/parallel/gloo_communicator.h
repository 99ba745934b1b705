// GlooCommunicator: CPU processes over TCP. Gloo connects them and carries bytes; sums are added in the order of ranks.
#pragma once

#include <chrono>
#include <functional>

#include "parallel/communicator.h"
#include "parallel/store.h"

namespace mixtune {

struct GlooOptions {
  int rank = 0, size = 1;
  std::string host;                     // name or address by which the other ranks reach this one; empty: 127.0.0.1
  std::chrono::milliseconds timeout{};  // for every operation, and for connecting
  // Asked when an operation has taken that long: true lets it wait as long again. Empty: it does not.
  std::function<bool()> goes_on = {};
};

// Connects the ranks, which all call this. `store` outlives the communicator and those split from it. Throws Error
// where the ranks do not find each other in time.
std::unique_ptr<Communicator> make_gloo_communicator(Store& store, const GlooOptions& options);

}  // namespace mixtune
