#include "tensor/graph.h"

#include <cuda_runtime_api.h>

#include "base/error.h"
#include "tensor/gpu.h"

namespace mixtune {

namespace {

using Recorded = CudaHandle<cudaGraph_t, cudaGraphDestroy>;
using Executable = CudaHandle<cudaGraphExec_t, cudaGraphExecDestroy>;

Recorded record(cudaStream_t stream, const std::function<void()>& work) {
  // Relaxed: other threads allocate, and a kernel's first launch loads its code.
  check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "graph");
  Recorded graph;
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(stream, &graph.handle);
    cudaGetLastError();  // of a capture that `work` left broken
    throw;
  }
  check_cuda(cudaStreamEndCapture(stream, &graph.handle), "graph");
  return graph;
}

bool takes_arguments(const Executable& executable, const Recorded& graph) {
  if (executable.handle == nullptr) return false;
  cudaGraphExecUpdateResultInfo result;
  if (cudaGraphExecUpdate(executable.handle, graph.handle, &result) == cudaSuccess) return true;
  cudaGetLastError();
  return false;
}

}  // namespace

struct Graph::Device {
  Executable executable;
  int64_t instantiations = 0;
};

Graph::Graph() : device_(std::make_unique<Device>()) {}
Graph::~Graph() = default;

void Graph::run(Ctx& ctx, const std::function<void()>& work) {
  MT_CHECK(ctx.gpu != nullptr && ctx.profiler == nullptr);
  const cudaStream_t stream = ctx.gpu->stream();
  const Recorded graph = record(stream, work);
  if (!takes_arguments(device_->executable, graph)) {
    device_->executable = {};
    check_cuda(cudaGraphInstantiate(&device_->executable.handle, graph.handle, 0), "graph");
    ++device_->instantiations;
  }
  check_cuda(cudaGraphLaunch(device_->executable.handle, stream), "graph");
}

int64_t Graph::instantiations() const {
  return device_->instantiations;
}

}  // namespace mixtune
