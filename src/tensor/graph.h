// Graph: work that ops put on a GPU's stream, given to the device as one CUDA graph.
#pragma once

#include <functional>
#include <memory>

#include "tensor/ctx.h"

namespace mixtune {

class Graph {
 public:
  Graph();
  ~Graph();  // what was launched may still run
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // Records what `work` puts on the stream of the ctx's GPU, and launches that. `work` may not wait for the device, nor
  // may ctx have a profiler. Memory that the device reads of the host must stay as it is until the stream has passed.
  // What `work` throws is thrown on, and nothing of it is launched.
  void run(Ctx& ctx, const std::function<void()>& work);

  // How often the device's graph was made anew: at first, and whenever the work was of other kernels, or in another
  // order, than the last time. Otherwise it takes their new arguments.
  int64_t instantiations() const;

 private:
  struct Device;
  std::unique_ptr<Device> device_;
};

}  // namespace mixtune
