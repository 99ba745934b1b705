// Where a step's time goes, as a file for chrome://tracing and Perfetto.
#pragma once

#include <string>
#include <vector>

#include "tensor/profiler.h"

namespace mixtune {

// Chrome's trace event format: each part a complete event, in microseconds.
std::string chrome_trace(const std::vector<Profiler::Part>& parts);

// Records what runs on a ctx, from its making on. Changes nothing of it.
class Trace {
 public:
  explicit Trace(Ctx& ctx);
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  // Waits for the device. Throws UserError where something has that name.
  void write(const std::string& path);

 private:
  Ctx& ctx_;
  Profiler profiler_;
};

}  // namespace mixtune
