#include "kernels/optimizer.h"

#include "kernels/cuda_ops.h"
#include "kernels/optimizer_cpu.h"

namespace mixtune {

namespace {

bool narrow(const Tensor& tensor) {
  return tensor.dtype == DType::kF32 || tensor.dtype == DType::kBF16;
}

void check(const AdamWTensor& t, bool on_gpu) {
  const int64_t n = t.weight.elements();
  MT_CHECK(t.grad.elements() == n && t.m.elements() == n && t.v.elements() == n && t.m.dtype == t.v.dtype);
  if (t.master) MT_CHECK(t.master.elements() == n && t.master.dtype == DType::kF32 && t.weight.dtype == DType::kBF16);
  if (t.weight.dtype == DType::kF64)
    MT_CHECK(!on_gpu && t.grad.dtype == DType::kF64 && t.m.dtype == DType::kF64);
  else
    MT_CHECK(narrow(t.weight) && narrow(t.grad) && narrow(t.m));
}

bool is_scalar(const Tensor& tensor) {
  return tensor.dtype == DType::kF64 && tensor.elements() == 1;
}

}  // namespace

void sum_of_squares(Ctx& ctx, std::span<const Tensor> tensors, const Tensor& sum) {
  MT_CHECK(is_scalar(sum));
  for (const Tensor& tensor : tensors) MT_CHECK(narrow(tensor) || (!ctx.like_gpu() && tensor.dtype == DType::kF64));
  ctx.like_gpu() ? cuda::sum_of_squares(ctx, tensors, sum) : cpu::sum_of_squares(ctx, tensors, sum);
}

void clip_scale(Ctx& ctx, const ClipScale& args) {
  MT_CHECK(is_scalar(args.squares) && is_scalar(args.scale) && (!args.guards || args.guards.dtype == DType::kF64));
  ctx.like_gpu() ? cuda::clip_scale(ctx, args) : cpu::clip_scale(args);
}

void adamw(Ctx& ctx, std::span<const AdamWTensor> tensors, const AdamWStep& args) {
  MT_CHECK(is_scalar(args.grad_scale) && args.step >= 1);
  for (const AdamWTensor& tensor : tensors) check(tensor, ctx.like_gpu());
  ctx.like_gpu() ? cuda::adamw(ctx, tensors, args) : cpu::adamw(ctx, tensors, args);
}

}  // namespace mixtune
