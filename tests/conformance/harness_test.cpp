// The harness itself: the errors that it must find, with a second CPU in the GPU's place.
#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <string>

#include "conformance/conformance.h"
#include "tensor/gpu_test.h"

namespace mixtune {
namespace {

constexpr int64_t kRows = 3, kColumns = 5;

struct TwoCpus {
  Stack left{"left", {}, 8 << 20}, right{"right", {}, 16 << 20};
  Ctx cpu{{}, left, left}, gpu{{}, right, right};
  Conformance c{cpu, gpu, DType::kF32, 1};
  Operand x = c.random("x", {kRows, kColumns}), y = c.output("y", {kRows, kColumns});

  // Computes y = 2 x, and then spoils the GPU's.
  void run(const std::function<void(float* y)>& spoil = [](float*) {}) {
    c.run([&](Ctx&, Side side) {
      for (int64_t i = 0; i < x[side].elements(); ++i) y[side].as<float>()[i] = 2 * x[side].as<float>()[i];
      if (side == Side::kGpu) spoil(y[side].as<float>());
    });
  }
};

TEST(Harness, PassesTheSameResults) {
  TwoCpus t;
  t.run();
  t.c.expect_close(t.y, 0);
  t.c.expect_norm_close(t.y, 0);
  t.c.expect_equal(t.y);
}

// A third is not the same in fp32 and fp64, and no further apart than half an epsilon of fp32.
TEST(Harness, ComparesWithTheOracle) {
  TwoCpus t;
  t.c.use_oracle();
  const Operand x = t.c.random("x of fp64", {kRows, kColumns}), third = t.c.output("third", {kRows, kColumns});
  ASSERT_EQ(x[Side::kCpu].dtype, DType::kF64);
  ASSERT_EQ(x[Side::kGpu].dtype, DType::kF32);
  t.c.run([&](Ctx&, Side side) {
    for (int64_t i = 0; i < kRows * kColumns; ++i)
      if (side == Side::kCpu)
        third[side].as<double>()[i] = x[side].as<double>()[i] / 3;
      else
        third[side].as<float>()[i] = x[side].as<float>()[i] / 3;
    std::fill_n(t.y[side].as<float>(), kRows * kColumns, 1.0f);
  });
  t.c.expect_close(third, 0.5);
  t.c.expect_equal(third);
  EXPECT_NONFATAL_FAILURE(t.c.expect_close(third, 0), "epsilons");
}

// Sets MIXTUNE_REQUIRE_GPU for a scope; afterwards it is as the program was started.
class RequiredGpus {
 public:
  explicit RequiredGpus(const char* count) { setenv(kName, count, 1); }
  ~RequiredGpus() {
    if (before_)
      setenv(kName, before_->c_str(), 1);
    else
      unsetenv(kName);
  }

 private:
  static constexpr const char* kName = "MIXTUNE_REQUIRE_GPU";
  std::optional<std::string> before_ =
      std::getenv(kName) ? std::optional<std::string>(std::getenv(kName)) : std::nullopt;
};

TEST(Harness, AMissingGpuThatIsRequiredIsAFailure) {
  const RequiredGpus two("2");
  EXPECT_EQ(required_gpus(), 2);
  EXPECT_FATAL_FAILURE(need_gpus(1, 0), "MIXTUNE_REQUIRE_GPU");
  EXPECT_FATAL_FAILURE(need_gpus(2, 1), "MIXTUNE_REQUIRE_GPU");
  need_gpus(2, 2);
  EXPECT_FALSE(IsSkipped());
}

TEST(Harness, FindsADifference) {
  TwoCpus t;
  t.run([](float* y) { y[7] += 1; });
  EXPECT_NONFATAL_FAILURE(t.c.expect_close(t.y, 4), "row 1, column 2");
  EXPECT_NONFATAL_FAILURE(t.c.expect_norm_close(t.y, 1e-3), "row 1, column 2");
  EXPECT_NONFATAL_FAILURE(t.c.expect_equal(t.y), "row 1, column 2");
  EXPECT_NONFATAL_FAILURE(t.c.expect_same(t.x, t.y), "differ");
}

TEST(Harness, FindsNaN) {
  TwoCpus t;
  t.run([](float* y) { y[14] = NAN; });
  EXPECT_NONFATAL_FAILURE(t.c.expect_close(t.y, 4), "the first NaN is in row 2, column 4");
}

TEST(Harness, FindsRunsThatDiffer) {
  TwoCpus t;
  int runs = 0;
  EXPECT_NONFATAL_FAILURE(t.run([&](float* y) { y[0] += runs++; }), "two runs on the GPU differ");
}

TEST(Harness, FindsScratchThatWasNotSet) {
  TwoCpus t;
  EXPECT_NONFATAL_FAILURE(t.run([&](float* y) { y[0] = *static_cast<float*>(t.right.rest().data); }),
                          "two runs on the GPU differ");
}

TEST(Harness, FindsWritesWhereThereShouldBeNone) {
  TwoCpus behind, input;
  EXPECT_NONFATAL_FAILURE(behind.run([](float* y) { y[kRows * kColumns] = 1; }), "behind its end");
  EXPECT_NONFATAL_FAILURE(input.run([&](float*) { input.x[Side::kGpu].as<float>()[3] = 1; }), "only reads");
}

TEST(Harness, FindsACpuThatDoesNothing) {
  TwoCpus t;
  EXPECT_NONFATAL_FAILURE(t.c.run([](Ctx&, Side) {}), "the CPU's op wrote nothing");
}

TEST(Harness, RestoresOperandsInPlace) {
  TwoCpus t;
  t.c.run([&](Ctx&, Side side) {
    for (int64_t i = 0; i < kRows * kColumns; ++i) t.y[side].as<float>()[i] = t.x[side].as<float>()[i] += 1;
  });
  t.c.expect_equal(t.x);
  t.c.expect_same(t.x, t.y);
}

TEST(Harness, ComparesRepetitions) {
  constexpr int64_t kTimes = 7;
  TwoCpus t;
  t.c.repeat(kTimes);
  const Operand rows = t.c.random("rows", {kRows, kColumns});
  EXPECT_EQ(rows[Side::kGpu].shape, Shape({kTimes * kRows, kColumns}));
  t.c.run([&](Ctx&, Side side) {
    const Tensor x = rows[side];
    for (int64_t i = 0; i < x.elements(); ++i) x.as<float>()[i] += 1;
    if (side == Side::kGpu) x.as<float>()[x.elements() - 1] = 0;
    std::fill_n(t.y[side].as<float>(), kRows * kColumns, 1.0f);
  });
  EXPECT_NONFATAL_FAILURE(t.c.expect_close(rows, 0), "row 2, column 4");
}

}  // namespace
}  // namespace mixtune
