#include "kernels/no_cuda.h"

#include "kernels/attention/cuda_ops.h"

namespace mixtune::cuda {

void append_to_cache(Ctx&, const CachedTokens&) {
  no_cuda();
}
void attention_backward(Ctx&, const AttentionShape&, const AttentionBackward&) {
  no_cuda();
}
std::string attention_backend(Gpu&, const AttentionShape&, DType) {
  no_cuda();
}
void attention_forward(Ctx&, const AttentionShape&, const Tensor&, const Tensor&, const Tensor&) {
  no_cuda();
}
void cached_attention(Ctx&, const CachedTokens&, int64_t, const Tensor&) {
  no_cuda();
}

}  // namespace mixtune::cuda
