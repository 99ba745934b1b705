#include "kernels/no_cuda.h"

#include "kernels/gemm/cuda_ops.h"

namespace mixtune::cuda {

void choose_gemms_by_rule(Gpu&) {
  no_cuda();
}
std::string digest_of_gemm_choices(Gpu&) {
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
std::string kind_of_gemm_choices(Gpu&) {
  no_cuda();
}
std::string measured_gemm_choices(Gpu&) {
  no_cuda();
}
void take_gemm_choices(Gpu&, const std::string&) {
  no_cuda();
}

}  // namespace mixtune::cuda
