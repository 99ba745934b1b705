// Ops conformance: one op on the same operands on a GPU and on its CPU twin.
//
// A case makes its operands with a Conformance, runs the op, and says how near its results must be:
//
//   void rms_norm_case(Conformance& c, int64_t tokens, int64_t hidden) {
//     const Operand x = c.random("x", {tokens, hidden});                 // rounded to c.dtype() on both sides
//     const Operand y = c.output("y", {tokens, hidden}), rstd = c.output("rstd", {tokens}, DType::kF32);
//     c.run([&](Ctx& ctx, Side side) {
//       rms_norm_forward(ctx, {.x = x[side], ..., .y = y[side], .rstd = rstd[side]});
//     });
//     c.expect_close(y, 4);  // 4 epsilons of c.dtype(), of the largest magnitude
//   }
//
// run() runs the op once on the CPU and twice on the GPU from poisoned outputs (NaN; in-place operands are restored)
// and poisoned scratch. It demands the same bits of every operand after both GPU runs, that the GPU writes nothing that
// the CPU only reads, and nothing behind the end of an operand.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/ctx.h"

namespace mixtune {

enum class Side { kCpu, kGpu };

// A tensor on both sides. The CPU's floats are fp32 whatever the GPU's dtype, or fp64 (use_oracle); fp64 and integers
// are the same on both.
class Operand {
 public:
  const Tensor& operator[](Side side) const { return side == Side::kCpu ? cpu_ : gpu_; }

 private:
  friend class Conformance;
  Tensor cpu_, gpu_;
  size_t index_ = 0;
};

class Conformance {
 public:
  // `dtype` is the model's on the GPU, kF32 or kBF16. All cases of a program share `gpu` and the stacks.
  Conformance(Ctx& cpu, Ctx& gpu, DType dtype, uint64_t seed);
  ~Conformance();

  DType dtype() const { return dtype_; }
  uint64_t seed() const { return seed_; }
  size_t gpu_bytes() const;  // of the operands

  // mean + deviation * normal values of (seed, name), rounded to the GPU's dtype (default: the case's) on both sides.
  Operand random(std::string_view name, Shape shape, double deviation = 1, double mean = 0);
  Operand random(std::string_view name, Shape shape, DType dtype, double deviation = 1, double mean = 0);
  // Elements value(i): int32, or fp64.
  Operand integers(std::string_view name, Shape shape, const std::function<int64_t(int64_t)>& value);
  Operand doubles(std::string_view name, Shape shape, const std::function<double(int64_t)>& value);
  // bf16 numbers of any bits, NaNs and infinities among them.
  Operand bits(std::string_view name, Shape shape, const std::function<uint16_t(int64_t)>& value);
  // A tensor that the op writes: NaN (floats) or -7 (integers) before each run. The dtype is the GPU's.
  Operand output(std::string_view name, Shape shape);
  Operand output(std::string_view name, Shape shape, DType dtype);
  // A tensor that the op writes, in memory that the host reads on either side (ctx.host_stack).
  Operand host_output(std::string_view name, Shape shape, DType dtype);

  // Makes later operands fp64 on the CPU where they are floats: for ops whose fp32 twin adds up so much that its own
  // error, which differs from host to host, would count. Then only the GPU's error is compared.
  void use_oracle() { oracle_ = true; }

  // Makes later operands hold the CPU's rows `times` times on the GPU ([times * rows, ...]): so ops whose rows are
  // independent get past 2^31 elements without the host's work. Comparisons are with some repetitions, by the seed, the
  // first and the last among them.
  void repeat(int64_t times) { times_ = times; }

  // The GPU's op adds up this result in no fixed order: two runs may give different bits.
  void any_order(const Operand& operand);

  // Runs the op; called once for each case.
  void run(const std::function<void(Ctx&, Side)>& op);

  // After run(). |gpu - cpu| <= epsilons * eps(dtype of the GPU's tensor) * the largest finite magnitude of the CPU's
  // tensor (bf16: 2^-8; fp32: 2^-23; fp64 results are held to 2^-23 too, being sums of fp32), for every element; and
  // nothing is NaN.
  void expect_close(const Operand& operand, double epsilons);
  void expect_norm_close(const Operand& operand, double relative);  // ||gpu - cpu|| <= relative * ||cpu||
  void expect_equal(const Operand& operand);                        // bitwise, but that a NaN may be any
  void expect_same(const Operand& a, const Operand& b);             // on the GPU, bitwise

 private:
  using Bytes = std::vector<uint8_t>;
  struct Held;
  enum class Role { kInput, kOutput, kHostOutput };

  Operand add(std::string_view name, Shape shape, DType dtype, Role role,
              const std::function<void(const Tensor&)>& fill_cpu);
  const Held& held(const Operand& operand) const;
  void upload(const Held& held);
  Bytes download(const Held& held);
  void poison_scratch(uint8_t byte);
  void run_on_gpu(const std::function<void(Ctx&, Side)>& op);
  void check_writes(const Held& held);

  Ctx& cpu_;
  Ctx& gpu_;
  DType dtype_;
  uint64_t seed_;
  int64_t times_ = 1;
  bool oracle_ = false;
  bool ran_ = false;
  Frame cpu_frame_, gpu_frame_;
  std::vector<std::unique_ptr<Held>> held_;
};

// The most GPU memory of a case that is not `large`: instrumented runs (memcheck) leave large ones out.
inline constexpr size_t kLargeBytes = size_t{1} << 30;

// A row of the table: a name, the shapes in words (both of [A-Za-z0-9_]), and the function to run.
struct ConformanceCase {
  std::string op;
  std::string shape;
  std::function<void(Conformance&)> check;
  bool fp32 = true, bf16 = true;  // the dtypes it runs in
  bool large = false;             // its operands take more than kLargeBytes of the GPU's memory; its name says so
};

inline ConformanceCase large(ConformanceCase one) {
  one.large = true;
  return one;
}

// Each file of cases makes one of these (cases.h); conformance_test.cpp puts them together.
using ConformanceCases = std::vector<ConformanceCase>;

}  // namespace mixtune
