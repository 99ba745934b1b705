// One launch over many tensors: their descriptors are a kernel's parameter, and each block finds its piece of one.
#pragma once

#include "kernels/cuda_math.cuh"

namespace mixtune::cuda {

// Up to kMost tensors, cut into chunks of kChunk elements, one to a block; no chunk holds elements of two tensors.
template <class Entry, int kMost, int64_t kChunk>
class TensorList {
 public:
  struct Chunk {
    int tensor;
    int64_t begin;  // in elements of the tensor
  };

  void clear() { count_ = 0; }
  bool full() const { return count_ == kMost; }
  int blocks() const { return first_block_[count_]; }
  void add(const Entry& entry, int64_t elements) {
    entries_[count_] = entry;
    first_block_[count_ + 1] = first_block_[count_] + static_cast<int>(ceil_div(elements, kChunk));
    ++count_;
  }

  __device__ const Entry& operator[](int tensor) const { return entries_[tensor]; }

  // The tensor t with first_block_[t] <= block < first_block_[t + 1].
  __device__ Chunk chunk(int block) const {
    int low = 0, high = count_;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (first_block_[middle] <= block)
        low = middle;
      else
        high = middle;
    }
    return {low, (block - first_block_[low]) * kChunk};
  }

 private:
  Entry entries_[kMost];
  int first_block_[kMost + 1] = {};
  int count_ = 0;
};

constexpr size_t kMaxParameterBytes = 4096;  // of a kernel, on every driver

}  // namespace mixtune::cuda
