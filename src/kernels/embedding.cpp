#include "kernels/embedding.h"

#include "kernels/dispatch.h"
#include "kernels/embedding_cpu.h"

namespace mixtune {

void embedding_forward(Ctx& ctx, const Tensor& ids, const Tensor& table, const Tensor& y) {
  on_device(ctx, table.dtype, [&]<class S>(S) { cpu::embedding_forward<S>(ids, table, y); });
}

void embedding_backward(Ctx& ctx, const Tensor& ids, const Tensor& dy, const Tensor& dtable, bool accumulate) {
  on_device(ctx, dtable.dtype, [&]<class S>(S) { cpu::embedding_backward<S>(ids, dy, dtable, accumulate); });
}

}  // namespace mixtune
