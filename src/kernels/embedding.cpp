#include "kernels/embedding.h"

#include "kernels/cuda_ops.h"
#include "kernels/embedding_cpu.h"
#include "kernels/on_device.h"

namespace mixtune {

void embedding_forward(Ctx& ctx, const Tensor& ids, const Tensor& table, const Tensor& y) {
  MT_CHECK(ids.rows() == y.rows() && table.shape[1] == y.shape[1]);
  on_device(
      ctx, "embedding", table.dtype, [&]<class S>(S) { cpu::embedding_forward<S>(ids, table, y); },
      [&] { cuda::embedding_forward(ctx, ids, table, y); });
}

void embedding_backward(Ctx& ctx, const EmbeddingBackward& args) {
  MT_CHECK(args.index.begin.rows() == args.index.ids.rows() + 1 && args.dy.shape[1] == args.dtable.shape[1]);
  on_device(
      ctx, "embedding, backward", args.dy.dtype, [&]<class S>(S) { cpu::embedding_backward<S>(args); },
      [&] { cuda::embedding_backward(ctx, args); });
}

}  // namespace mixtune
