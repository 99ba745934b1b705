#include "tensor/graphs.h"

#include <cuda_runtime_api.h>

#include <vector>

#include "base/error.h"
#include "tensor/gpu.h"

namespace mixtune {

namespace {

using Recorded = CudaHandle<cudaGraph_t, cudaGraphDestroy>;
using Executable = CudaHandle<cudaGraphExec_t, cudaGraphExecDestroy>;

// Relaxed: other threads allocate, and a kernel's first launch loads its code.
void begin(cudaStream_t stream) {
  check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "graph");
}

bool takes_arguments(const Executable& executable, const Recorded& graph) {
  if (executable.handle == nullptr) return false;
  cudaGraphExecUpdateResultInfo result;
  if (cudaGraphExecUpdate(executable.handle, graph.handle, &result) == cudaSuccess) return true;
  cudaGetLastError();
  return false;
}

}  // namespace

struct Graphs::Device {
  std::vector<Executable> executables;  // in the order of the work
  size_t next = 0;
  int64_t instantiations = 0;

  void launch(cudaStream_t stream) {
    Recorded graph;
    check_cuda(cudaStreamEndCapture(stream, &graph.handle), "graph");
    if (next == executables.size()) executables.emplace_back();
    Executable& executable = executables[next++];
    if (!takes_arguments(executable, graph)) {
      executable = {};
      check_cuda(cudaGraphInstantiate(&executable.handle, graph.handle, 0), "graph");
      ++instantiations;
    }
    check_cuda(cudaGraphLaunch(executable.handle, stream), "graph");
  }
};

Graphs::Graphs() : device_(std::make_unique<Device>()) {}
Graphs::~Graphs() = default;

void Graphs::run(Ctx& ctx, const std::function<void()>& work) {
  MT_CHECK(ctx.gpu != nullptr && ctx.profiler == nullptr);
  const cudaStream_t stream = ctx.gpu->stream();
  device_->next = 0;
  begin(stream);
  try {
    work();
  } catch (...) {
    Recorded dropped;
    cudaStreamEndCapture(stream, &dropped.handle);
    cudaGetLastError();  // of a recording that `work` left broken
    throw;
  }
  device_->launch(stream);
}

void Graphs::cut(Ctx& ctx) {
  device_->launch(ctx.gpu->stream());
  begin(ctx.gpu->stream());
}

int64_t Graphs::instantiations() const {
  return device_->instantiations;
}

}  // namespace mixtune
