// SwiGLU on a GPU: a block for each row. Bound by memory: packs of 16 bytes, many under way.
#include "kernels/cuda_ops.h"
#include "kernels/cuda_pack.cuh"
#include "kernels/swiglu_math.cuh"

namespace mixtune::cuda {

namespace {

constexpr int kWide = 256;   // threads for the rows of real models
constexpr int kNarrow = 32;  // for rows of at most kNarrowPacks packs
constexpr int kNarrowPacks = 64;

template <class S, int Threads, int Width>
__global__ void __launch_bounds__(Threads)
    forward_kernel(const S* __restrict__ gate_up, const float* __restrict__ row_weights, S* __restrict__ act,
                   int columns) {
  const int64_t row = blockIdx.x;
  const S *gate = gate_up + row * 2 * columns, *up = gate + columns;
  S* out = act + row * columns;
  const float weight = row_weights[row];
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x) * Width; i < columns; i += Threads * Width) {
    const auto g = load<Width>(gate + i), u = load<Width>(up + i);
    Pack<S, Width> a;
#pragma unroll
    for (int k = 0; k < Width; ++k) a.set(k, swiglu<S>(g[k], u[k], weight));
    store(out + i, a);
  }
}

template <class S>
struct Backward {
  const S* gate_up;
  const float* row_weights;
  const S* dact;
  S* dgate_up;  // may be gate_up
  float* drow_weights;
  S* act;       // may be dact; null: not wanted
  int columns;  // F
};

// Four blocks on a multiprocessor: what they have under way covers the memory's latency.
template <class S, int Threads, int Width>
__global__ void __launch_bounds__(Threads, 4) backward_kernel(Backward<S> a) {
  const int64_t row = blockIdx.x, columns = a.columns;
  const S *gate = a.gate_up + row * 2 * columns, *up = gate + columns, *dact = a.dact + row * columns;
  S *dgate = a.dgate_up + row * 2 * columns, *dup = dgate + columns;
  S* act = a.act ? a.act + row * columns : nullptr;
  const float weight = a.row_weights[row];
  float dweight = 0;
  for (int i = static_cast<int>(threadIdx.x) * Width; i < a.columns; i += Threads * Width) {
    const auto g = load<Width>(gate + i), u = load<Width>(up + i), d = load<Width>(dact + i);
    Pack<S, Width> dg, du, again;
#pragma unroll
    for (int k = 0; k < Width; ++k) {
      const SwigluGradient one = swiglu_gradient<S>(g[k], u[k], weight, d[k]);
      dweight += one.dweight;
      dg.set(k, one.dgate);
      du.set(k, one.dup);
      again.set(k, one.act);
    }
    store(dgate + i, dg);
    store(dup + i, du);
    if (act) store(act + i, again);
  }
  dweight = block_sum<Threads>(dweight);
  if (threadIdx.x == 0) a.drow_weights[row] = dweight;
}

// Calls op(Constant<Threads>{}, Constant<Width>{}) for rows of `columns`.
template <class S, class Op>
void on_row(bool fit, int64_t columns, Op&& op) {
  on_width<S>(fit, [&](auto width) {
    if (columns <= kNarrowPacks * width)
      op(Constant<kNarrow>{}, width);
    else
      op(Constant<kWide>{}, width);
  });
}

}  // namespace

void swiglu_forward(Ctx& ctx, const Tensor& gate_up, const Tensor& row_weights, const Tensor& act) {
  if (act.elements() == 0) return;
  const auto columns = static_cast<int>(act.shape[1]);
  on_dtype(act.dtype, [&]<class S>(S) {
    on_row<S>(packs_fit<S>(columns, gate_up, act), columns, [&](auto threads, auto width) {
      forward_kernel<S, threads(), width()><<<act.rows(), threads(), 0, ctx.gpu->stream()>>>(
          elements<S>(gate_up), elements<float>(row_weights), elements<S>(act), columns);
    });
  });
  check_cuda(cudaGetLastError(), "swiglu_forward_kernel");
}

void swiglu_backward(Ctx& ctx, const SwigluBackward& args) {
  if (args.dact.elements() == 0) return;
  on_dtype(args.dact.dtype, [&]<class S>(S) {
    const Backward<S> a{.gate_up = elements<S>(args.gate_up),
                        .row_weights = elements<float>(args.row_weights),
                        .dact = elements<S>(args.dact),
                        .dgate_up = elements<S>(args.dgate_up),
                        .drow_weights = elements<float>(args.drow_weights),
                        .act = elements<S>(args.act),
                        .columns = static_cast<int>(args.dact.shape[1])};
    const bool fit = packs_fit<S>(a.columns, args.gate_up, args.dact, args.dgate_up, args.act);
    on_row<S>(fit, a.columns, [&](auto threads, auto width) {
      backward_kernel<S, threads(), width()><<<args.dact.rows(), threads(), 0, ctx.gpu->stream()>>>(a);
    });
  });
  check_cuda(cudaGetLastError(), "swiglu_backward_kernel");
}

}  // namespace mixtune::cuda
