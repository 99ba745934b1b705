// Graphs: work that ops put on a GPU's stream, given to the device as CUDA graphs.
#pragma once

#include <functional>
#include <memory>

#include "tensor/ctx.h"

namespace mixtune {

class Graphs {
 public:
  Graphs();
  ~Graphs();  // what was launched may still run
  Graphs(const Graphs&) = delete;
  Graphs& operator=(const Graphs&) = delete;

  // Records what `work` puts on the stream of the ctx's GPU, and launches that. `work` may not wait for the device, nor
  // may ctx have a profiler. Memory that the device reads of the host must stay as it is until the stream has passed.
  // What `work` throws is thrown on; nothing is launched after that.
  void run(Ctx& ctx, const std::function<void()>& work);
  // Called by `work`, where no side stream runs: launches what was recorded since it was last called, as a graph of its
  // own. The device begins while the host records on.
  void cut(Ctx& ctx);

  // How often a graph was made anew: at first, and where it was of other kernels, or in another order, than the last
  // time. Otherwise it takes their new arguments.
  int64_t instantiations() const;

 private:
  struct Device;
  std::unique_ptr<Device> device_;
};

}  // namespace mixtune
