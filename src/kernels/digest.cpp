#include "kernels/digest.h"

#include "kernels/cuda_ops.h"
#include "kernels/digest_cpu.h"

namespace mixtune {

void digest(Ctx& ctx, std::span<const Tensor> tensors, const Tensor& digests) {
  MT_CHECK(digests.dtype == DType::kI64 && digests.elements() == static_cast<int64_t>(tensors.size()));
  for (const Tensor& tensor : tensors)
    MT_CHECK(dtype_size(tensor.dtype) > 1 && reinterpret_cast<uintptr_t>(tensor.data) % 4 == 0);
  if (ctx.is_meta()) return;
  ctx.like_gpu() ? cuda::digest(ctx, tensors, digests) : cpu::digest(tensors, digests);
}

}  // namespace mixtune
