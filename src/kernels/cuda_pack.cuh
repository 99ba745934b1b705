// Rows in packs: kernels take the Width of a pack as a template argument, a vector of 16 bytes where the rows allow it
// and a single element where they do not.
#pragma once

#include <type_traits>

#include "kernels/cuda_math.cuh"

namespace mixtune::cuda {

// Width neighbours of a row as they lie in memory, moved by accesses of up to 16 bytes.
template <class T, int Width>
struct alignas(Width * sizeof(T) < 16 ? Width * sizeof(T) : 16) Pack {
  T x[Width];

  __device__ float operator[](int i) const { return to_float(x[i]); }
  __device__ void set(int i, float value) { x[i] = from_float<T>(value); }
};

template <int Width, class T>
__device__ Pack<T, Width> load(const T* from) {
  return *reinterpret_cast<const Pack<T, Width>*>(from);
}
template <int Width, class T>
__device__ void store(T* to, const Pack<T, Width>& pack) {
  *reinterpret_cast<Pack<T, Width>*>(to) = pack;
}

// Whether all these tensors, of rows of `columns` elements, can be read in packs of kVector<S>. An empty one can.
template <class S, class... Tensors>
bool packs_fit(int64_t columns, const Tensors&... tensors) {
  return (vectors_fit<S>(tensors.data, columns) && ...);
}

template <int Value>
using Constant = std::integral_constant<int, Value>;

// Calls op(Constant<Width>{}): kVector<S> where packs fit, 1 where they do not.
template <class S, class Op>
void on_width(bool fit, Op&& op) {
  if (fit) return op(Constant<kVector<S>>{});
  op(Constant<1>{});
}

}  // namespace mixtune::cuda
