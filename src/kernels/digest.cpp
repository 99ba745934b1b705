#include "kernels/digest.h"

#include "kernels/cuda_ops.h"
#include "kernels/digest_cpu.h"
#include "tensor/device.h"

namespace mixtune {

void digest(Ctx& ctx, std::span<const Tensor> tensors, const Tensor& digests) {
  MT_CHECK(digests.dtype == DType::kI64 && digests.elements() == static_cast<int64_t>(tensors.size()));
  for (const Tensor& tensor : tensors)
    MT_CHECK(dtype_size(tensor.dtype) > 1 && reinterpret_cast<uintptr_t>(tensor.data) % 4 == 0);
  if (ctx.is_meta()) return;
  ctx.like_gpu() ? cuda::digest(ctx, tensors, digests) : cpu::digest(tensors, digests);
}

std::vector<int64_t> read_digests(Ctx& ctx, std::span<const Tensor> tensors) {
  const Frame frame(ctx);
  const auto n = static_cast<int64_t>(tensors.size());
  const Tensor digests = ctx.stack.push("digests", {n}, DType::kI64),
               here = ctx.host_stack.push("digests", {n}, DType::kI64);
  digest(ctx, tensors, digests);
  copy(ctx, digests, here);
  wait(ctx);
  return {here.as<int64_t>(), here.as<int64_t>() + n};
}

}  // namespace mixtune
