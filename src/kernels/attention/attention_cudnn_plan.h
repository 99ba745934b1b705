// cuDNN's plans for attention: the graph of a pass and the kernel that is compiled for it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "kernels/attention/attention_plans.h"
#include "tensor/gpu.h"

struct cudnnContext;  // cuDNN's own

namespace mixtune::cuda {

// The version of the cuDNN on this machine, "9.19.0"; empty where none opens.
std::string cudnn_version();
// Whether there is a cuDNN that is new enough.
bool cudnn_is_usable();

// cuDNN's state for a device. Its kernels run on `stream`.
class CudnnHandle {
 public:
  explicit CudnnHandle(cudaStream_t stream);
  ~CudnnHandle();
  CudnnHandle(const CudnnHandle&) = delete;
  CudnnHandle& operator=(const CudnnHandle&) = delete;

  cudnnContext* get() const { return handle_; }

 private:
  CudnnHandle() = default;

  cudnnContext* handle_ = nullptr;
};

// Names of a graph's tensors. Those from kQLengths on are for documents of any length; RaggedOffsets has them. Keys and
// values have offsets of their own, though equal to those of queries: so cuDNN is used, and tested, by everybody.
// clang-format off
enum AttentionTensor : int64_t {
  kQ = 1, kK, kV, kOut, kLse, kDout, kDq, kDk, kDv,
  kQLengths, kKvLengths, kQOffsets, kKOffsets, kVOffsets, kOutOffsets, kLseOffsets, kDkOffsets, kDvOffsets
};
// clang-format on

// Queries, keys and values lie side by side in rows of qkv, and dq in rows as wide; dk and dv too if documents are
// equal, else in rows of their own. lse is [token][head]; if documents are equal, [document][head][token].
class AttentionPlan {
 public:
  // Chooses the kernel. Throws Error where cuDNN has none.
  AttentionPlan(const AttentionPlanKey& key, const CudnnHandle& handle, int compute_capability);
  ~AttentionPlan();

  // Compiles the kernel, before the plan is used; may run in another thread.
  void compile();

  const AttentionPlanKey& key() const { return key_; }
  int64_t workspace_bytes() const { return workspace_bytes_; }

  // Pointers by AttentionTensor; it may have more than the graph has.
  using Pointers = std::unordered_map<int64_t, void*>;
  void execute(const CudnnHandle& handle, Pointers& pointers, void* workspace);

 private:
  struct Graph;

  AttentionPlanKey key_;
  std::unique_ptr<Graph> graph_;
  int64_t workspace_bytes_ = 0;
};

}  // namespace mixtune::cuda
