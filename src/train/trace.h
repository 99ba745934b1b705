// A trace: where a step's time goes, as a file for chrome://tracing and Perfetto.
#pragma once

#include <string>
#include <vector>

#include "base/staged.h"
#include "tensor/profiler.h"

namespace mixtune {

// The parts in Chrome's trace event format, each a complete event, in microseconds.
std::string chrome_trace(const std::vector<Profiler::Part>& parts);

// Records what runs on a ctx, without changing any of it, from its making on.
class Trace {
 public:
  explicit Trace(Ctx& ctx);
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  // Writes the trace. Waits for the device. Throws UserError where something has that name.
  void write(const std::string& path, Existing existing = Existing::kRefused);

 private:
  Ctx& ctx_;
  Profiler profiler_;
};

}  // namespace mixtune
