// The CUDA halves in a build without CUDA: no Ctx has a Gpu, so none is ever called.
#include "kernels/cuda_ops.h"

namespace mixtune::cuda {

namespace {

[[noreturn]] void no_cuda() {
  MT_CHECK(!"an op was called on a GPU in a build without CUDA");
  throw;
}

}  // namespace

void add_sum(Ctx&, const Tensor&, const Tensor&) {
  no_cuda();
}
void adamw(Ctx&, std::span<const AdamWTensor>, const AdamWStep&) {
  no_cuda();
}
void attention_backward(Ctx&, const AttentionShape&, const AttentionBackward&) {
  no_cuda();
}
std::string attention_backend(Gpu&, const AttentionShape&, DType) {
  no_cuda();
}
void begin_warm_up(Ctx&, const AttentionShape&, DType, const BatchLimits&) {
  no_cuda();
}
void finish_warm_up(Ctx&) {
  no_cuda();
}
std::string kind_of_gemm_choices(Gpu&) {
  no_cuda();
}
void choose_gemms_by_rule(Gpu&) {
  no_cuda();
}
std::string measured_gemm_choices(Gpu&) {
  no_cuda();
}
void take_gemm_choices(Gpu&, const std::string&) {
  no_cuda();
}
std::string digest_of_gemm_choices(Gpu&) {
  no_cuda();
}
void attention_forward(Ctx&, const AttentionShape&, const Tensor&, const Tensor&, const Tensor&) {
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
void embedding_backward(Ctx&, const EmbeddingBackward&) {
  no_cuda();
}
void embedding_forward(Ctx&, const Tensor&, const Tensor&, const Tensor&) {
  no_cuda();
}
void fill_normal(Ctx&, const FillNormal&) {
  no_cuda();
}
void gemm(Ctx&, const GemmArgs&) {
  no_cuda();
}
void grouped_gemm(Ctx&, const GroupedGemmArgs&) {
  no_cuda();
}
void grouped_wgrad(Ctx&, const GroupedWgradArgs&) {
  no_cuda();
}
void permute_invert(Ctx&, const Tensor&, const Tensor&) {
  no_cuda();
}
void permute_map(Ctx&, const PermuteMap&) {
  no_cuda();
}
void permute_rows(Ctx&, const Tensor&, const Tensor&, int64_t, const Tensor&) {
  no_cuda();
}
void permute_weights(Ctx&, const Tensor&, const Tensor&, const Tensor&) {
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
void router_backward(Ctx&, const RouterBackward&) {
  no_cuda();
}
void router_forward(Ctx&, const RouterForward&) {
  no_cuda();
}
void router_logits(Ctx&, const Tensor&, const Tensor&, const Tensor&) {
  no_cuda();
}
void router_logits_backward(Ctx&, const RouterLogitsBackward&) {
  no_cuda();
}
void router_loss(Ctx&, const RouterLoss&) {
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
void unpermute_rows(Ctx&, const Tensor&, const Tensor&, const Tensor&, const Tensor&) {
  no_cuda();
}
void unpermute_weights(Ctx&, const Tensor&, const Tensor&, const Tensor&) {
  no_cuda();
}

}  // namespace mixtune::cuda
