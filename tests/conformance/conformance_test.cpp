// Runs every op on the GPU beside its CPU twin: a test op.shape_dtype_seed for each case of cases.h, with _large at the
// end for large ones.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <optional>

#include "conformance/cases.h"
#include "tensor/gpu_test.h"

namespace mixtune {
namespace {

constexpr Device kGpu{DeviceType::kCuda, 0};

// What all cases share. The stack takes most of the GPU's memory; the CPU's is address space, taken when touched.
struct Sides {
  std::shared_ptr<Gpu> device = make_gpu(kGpu, {});
  Stack cpu_stack{"conformance's CPU stack", {}, size_t{16} << 30};
  Stack gpu_stack{"conformance's GPU stack", kGpu, available_memory(kGpu) / 10 * 6};
  Stack pinned_stack{"conformance's pinned stack", {}, 64 << 20, HostMemory::kPinned};
  Ctx cpu{{}, cpu_stack, cpu_stack};
  Ctx gpu{kGpu, gpu_stack, pinned_stack, device.get()};
};

class ConformanceTest : public ::testing::Test {
 public:
  ConformanceTest(const ConformanceCase& test_case, DType dtype, uint64_t seed, std::optional<Sides>& sides)
      : case_(test_case), dtype_(dtype), seed_(seed), sides_(sides) {}

  void SetUp() override { need_gpus(1, gpu_count()); }

  void TestBody() override {
    if (!sides_) sides_.emplace();
    Conformance conformance(sides_->cpu, sides_->gpu, dtype_, seed_);
    case_.check(conformance);
    EXPECT_TRUE(case_.large || conformance.gpu_bytes() <= kLargeBytes)
        << "operands of " << conformance.gpu_bytes() << " bytes: say that it is large";
  }

 private:
  ConformanceCase case_;
  DType dtype_;
  uint64_t seed_;
  std::optional<Sides>& sides_;
};

void register_case(const ConformanceCase& test_case, DType dtype, uint64_t seed, std::optional<Sides>& sides) {
  const std::string name =
      fmt::format("{}_{}_seed{}{}", test_case.shape, dtype_name(dtype), seed, test_case.large ? "_large" : "");
  ::testing::RegisterTest(
      test_case.op.c_str(), name.c_str(), nullptr, nullptr, __FILE__, __LINE__,
      [=, &sides]() -> ConformanceTest* { return new ConformanceTest(test_case, dtype, seed, sides); });
}

void register_cases(std::optional<Sides>& sides) {
  for (const auto group : {adapter_cases, elementwise_cases, cross_entropy_cases, router_cases, routing_cases,
                           optimizer_cases, digest_cases, eight_bit_cases, four_bit_cases, gemm_cases, attention_cases,
                           cached_attention_cases, attention_cudnn_cases})
    for (const ConformanceCase& test_case : group())
      for (const uint64_t seed : {1, 2}) {
        if (test_case.fp32) register_case(test_case, DType::kF32, seed, sides);
        if (test_case.bf16) register_case(test_case, DType::kBF16, seed, sides);
      }
}

}  // namespace
}  // namespace mixtune

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  std::optional<mixtune::Sides> sides;
  mixtune::register_cases(sides);
  return RUN_ALL_TESTS();
}
