#include "kernels/no_cuda.h"

#include "kernels/cuda_ops.h"

namespace mixtune::cuda {

void add_sum(Ctx&, const Tensor&, const Tensor&) {
  no_cuda();
}
void adamw(Ctx&, std::span<const AdamWTensor>, const AdamWStep&) {
  no_cuda();
}
void begin_warm_up(Ctx&, const AttentionShape&, DType, const BatchLimits&) {
  no_cuda();
}
void cast(Ctx&, const Tensor&, const Tensor&) {
  no_cuda();
}
void clip_scale(Ctx&, const ClipScale&) {
  no_cuda();
}
void cross_entropy(Ctx&, const CrossEntropy&) {
  no_cuda();
}
void digest(Ctx&, std::span<const Tensor>, const Tensor&) {
  no_cuda();
}
void drop_out(Ctx&, const DropOut&) {
  no_cuda();
}
void embedding_backward(Ctx&, const EmbeddingBackward&) {
  no_cuda();
}
void embedding_forward(Ctx&, const Tensor&, const Tensor&, const Tensor&) {
  no_cuda();
}
void expand_adapter(Ctx&, const ExpandAdapter&) {
  no_cuda();
}
void fill_normal(Ctx&, const FillNormal&) {
  no_cuda();
}
void finish_warm_up(Ctx&) {
  no_cuda();
}
void fold_adapter(Ctx&, const FoldAdapter&) {
  no_cuda();
}
void rms_norm_backward(Ctx&, const RmsNormBackward&) {
  no_cuda();
}
void rms_norm_forward(Ctx&, const RmsNormForward&) {
  no_cuda();
}
void rms_norm_recompute(Ctx&, const Tensor&, const Tensor&, const Tensor&, const Tensor&) {
  no_cuda();
}
void rope(Ctx&, const RopeArgs&) {
  no_cuda();
}
void rope_table(Ctx&, const Tensor&, double, const Tensor&) {
  no_cuda();
}
void sum_of_squares(Ctx&, std::span<const Tensor>, const Tensor&) {
  no_cuda();
}
void swiglu_backward(Ctx&, const SwigluBackward&) {
  no_cuda();
}
void swiglu_forward(Ctx&, const Tensor&, const Tensor&, const Tensor&) {
  no_cuda();
}

}  // namespace mixtune::cuda
