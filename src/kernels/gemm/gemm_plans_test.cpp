// How GEMM algorithms are chosen, kept and reused. Needs a GPU. The conformance tests see that products are right.
#include "kernels/gemm/gemm_plans.h"

#include <gtest/gtest.h>

#include <array>
#include <filesystem>

#include "base/temp_folder.h"
#include "kernels/eight_bit/coded_gemm.h"
#include "kernels/gemm/gemm.h"
#include "tensor/gpu_test.h"

namespace mixtune {
namespace {

constexpr Device kDevice = {DeviceType::kCuda, 0};
constexpr int64_t kN = 4096, kK = 2048, kMaxTokens = 4096;

class GemmPlansTest : public GpuTest {
 protected:
  const TempFolder temporary_;
  const std::string folder_ = temporary_.path();
};

// A GPU with choices of its own, as a process has it.
struct Session {
  explicit Session(const GpuOptions& options) : gpu(make_gpu(kDevice, options)) {
    plans().set_max_tokens(kMaxTokens, kMaxTokens);
  }

  GemmPlans& plans() { return gpu->part<GemmPlans>(); }

  // C = A B^T of zeros; choices do not look at the values.
  void multiply(int64_t tokens, bool accumulate = false) {
    const Stack::Frame frame(stack);
    const Tensor a = stack.push("a", {tokens, kK}, DType::kBF16), b = stack.push("b", {kN, kK}, DType::kBF16),
                 c = stack.push("c", {tokens, kN}, DType::kBF16);
    for (const Tensor& tensor : {a, b, c}) zero(ctx, tensor);
    gemm(ctx, {.a = a, .b = b, .c = c, .trans_b = true, .accumulate = accumulate});
    wait(ctx);
  }

  std::shared_ptr<Gpu> gpu;
  Stack stack{"test", kDevice, size_t{512} << 20};
  Stack pinned{"test", {}, 1 << 20, HostMemory::kPinned};
  Ctx ctx{kDevice, stack, pinned, gpu.get()};
};

std::string file_in(const std::string& folder) {
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".txt") return entry.path();
  return "";
}

// What has_coded_products says of this GPU is what cuBLASLt says.
TEST_F(GemmPlansTest, CodesHaveAlgorithmsWhereTheyAreSaidTo) {
  const CublasLt lt;
  for (const ScaleRule rule : {ScaleRule::kPowerOfTwo, ScaleRule::kMx})
    for (const bool accumulate : {false, true}) {
      const GemmKey shape = {.m = 256,
                             .n = kN,
                             .k = kK,
                             .operands = DType::kF8E4M3,
                             .result = accumulate ? DType::kF32 : DType::kBF16,
                             .scales = codes_kind(rule).scales,
                             .trans_b = true,
                             .accumulate = accumulate};
      std::array<GemmAlgorithm, 8> found;
      EXPECT_EQ(lt.candidates(shape, Gpu::kWorkspaceBytes, found) > 0,
                has_coded_products(gpu_info(kDevice.index).compute_capability, rule))
          << shape.str();
    }
}

TEST_F(GemmPlansTest, TheFirstProductOfAShapeMakesTheChoicesForAllSizes) {
  Session session({});
  session.multiply(300);
  EXPECT_EQ(session.plans().choices().size(), 10u);  // 128 ... 4096
  EXPECT_EQ(session.plans().measured(), 10);
  session.gpu->finish_warm_up();
  for (const int64_t tokens : {1, 100, 128, 129, 1025, 2048, 3071, 4096}) session.multiply(tokens);
  EXPECT_EQ(session.gpu->late_plans(), 0);
  EXPECT_EQ(session.plans().choices().size(), 10u);
}

// A rank is in this place when warm-up's tokens did not go to its experts.
TEST_F(GemmPlansTest, ProductsWithoutTokensMakeTheChoicesToo) {
  int64_t advanced = 0;
  Session session({.advanced = [&] {
    ++advanced;
  }});
  const Stack::Frame frame(session.stack);
  const auto none = [&](int64_t columns, DType dtype) {
    return session.stack.push("no rows", {0, columns}, dtype);
  };
  const Tensor gradient = session.stack.push("gradient", {1, kN, kK}, DType::kF32);
  const int32_t nothing = 0;
  session.multiply(0);
  grouped_wgrad(session.ctx, {.dy = none(kN, DType::kBF16),
                              .x = none(kK, DType::kBF16),
                              .dw = gradient,
                              .groups = {.begin = &nothing, .count = &nothing, .groups = 1}});
  EXPECT_EQ(session.plans().measured(), 20);
  EXPECT_EQ(advanced, 20);
  session.gpu->finish_warm_up();
  for (const int64_t tokens : {0, 1, 300, 4096}) session.multiply(tokens);
  EXPECT_EQ(session.gpu->late_plans(), 0);
  EXPECT_EQ(session.plans().measured(), 20);
}

TEST_F(GemmPlansTest, LateChoicesAreCounted) {
  Session session({});
  session.multiply(300);
  session.gpu->finish_warm_up();
  session.multiply(5000);
  EXPECT_EQ(session.gpu->late_plans(), 1);
  session.multiply(5001);
  EXPECT_EQ(session.gpu->late_plans(), 1);
  session.multiply(300, true);
  EXPECT_EQ(session.gpu->late_plans(), 2);
}

TEST_F(GemmPlansTest, LaterRunsTakeTheChoicesOfTheFile) {
  Session first({.plan_cache = folder_}), second({.plan_cache = folder_});
  second.multiply(300, true);  // looks for the file, and there is none yet
  EXPECT_EQ(second.plans().measured(), 10);
  first.multiply(300);
  first.plans().save();
  Session third({.plan_cache = folder_});
  third.multiply(300);
  EXPECT_EQ(third.plans().measured(), 0);
  EXPECT_EQ(third.plans().choices().size(), 10u);
  second.multiply(300);
  EXPECT_EQ(second.plans().measured(), 20);
}

TEST_F(GemmPlansTest, StoredAlgorithmsThatDoNotFitAreNotUsed) {
  Session first({.plan_cache = folder_});
  first.multiply(300);
  first.plans().save();
  const std::string machine = gpu_info(0).name + ", cuBLASLt " + CublasLt().version();
  GemmChoices stored = read_choices(file_in(folder_), machine);
  ASSERT_EQ(stored.size(), 10u);
  uint64_t bits = 1;
  for (auto& [key, choice] : stored)
    for (uint64_t& word : choice.algorithm) word = bits *= 0x9E3779B97F4A7C15ull;
  add_choices(file_in(folder_), machine, stored);

  Session second({.plan_cache = folder_});
  second.multiply(300);
  EXPECT_EQ(second.plans().measured(), 10);
}

// `b` has all that `a` has, and perhaps more.
void expect_same_algorithms(const GemmChoices& a, const GemmChoices& b) {
  for (const auto& [key, choice] : a) {
    const auto other = b.find(key);
    ASSERT_NE(other, b.end()) << key.str();
    EXPECT_EQ(other->second.algorithm, choice.algorithm) << key.str();
  }
}

// Without a file the second measures nothing, and nothing that it needs is left to be chosen late.
TEST_F(GemmPlansTest, OneMeasuresForAnother) {
  Session first({}), second({.plan_cache = folder_});
  second.plans().choose_by_rule();
  first.multiply(300);
  second.multiply(300);
  second.multiply(300, true);
  EXPECT_NE(first.plans().digest(), second.plans().digest());
  second.plans().take_choices(first.plans().measured_choices());
  EXPECT_EQ(first.plans().digest(), second.plans().digest());
  EXPECT_EQ(second.plans().measured(), 0);
  second.plans().save();
  EXPECT_TRUE(std::filesystem::is_empty(folder_));

  for (Session* session : {&first, &second}) {
    session->gpu->finish_warm_up();
    for (const int64_t tokens : {1, 100, 129, 1025, 4096}) session->multiply(tokens);
    EXPECT_EQ(session->gpu->late_plans(), 0);
    session->multiply(300, true);  // the first has not met it before
    session->multiply(5000);
  }
  EXPECT_EQ(first.plans().choices().size(), 12u);
  expect_same_algorithms(first.plans().choices(), second.plans().choices());
}

TEST_F(GemmPlansTest, ChoicesByRuleAreTheSameInEverySession) {
  Session first({.deterministic = true}), second({});
  second.plans().choose_by_rule();
  first.multiply(300);
  second.multiply(2000);
  EXPECT_EQ(first.plans().choices().size(), 10u);
  expect_same_algorithms(first.plans().choices(), second.plans().choices());
  EXPECT_EQ(first.plans().digest(), second.plans().digest());
}

TEST_F(GemmPlansTest, DeterministicRunsMeasureNothing) {
  Session session({.deterministic = true, .plan_cache = folder_});
  session.multiply(300);
  session.plans().save();
  EXPECT_EQ(session.plans().measured(), 0);
  EXPECT_EQ(session.plans().choices().size(), 10u);
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

}  // namespace
}  // namespace mixtune
