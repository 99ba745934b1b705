// Cross-entropy.
#include <fmt/format.h>

#include <algorithm>

#include "base/random.h"
#include "conformance/cases.h"
#include "conformance/tolerances.h"
#include "kernels/cross_entropy.h"

namespace mixtune {
namespace {

enum class Dlogits { kNone, kApart, kInPlace, kWeighted };

// A thread of the GPU adds up at most this many exponentials in fp32; the threads' sums are added in fp64.
int64_t terms_of_a_thread(int64_t vocab) {
  return std::max<int64_t>(32, vocab / 1024);
}

// Against fp64: the CPU's fp32 sum of a whole row is worse than the GPU's. The loss takes the relative error of a sum
// of exponentials, within 2 ulp each, absolutely, and is about 10. An element of dlogits is good relative to itself
// (but for cancellation at the target): the norm shows that.
void cross_entropy_case(Conformance& c, int64_t rows, int64_t vocab, Dlogits kind, int64_t times = 1) {
  const Operand weights =  // fp32 for the CPU too
      kind == Dlogits::kWeighted ? c.random("weights", {rows}, DType::kF32, 0.25, 1) : Operand{};
  c.use_oracle();
  c.repeat(times);
  const Operand logits = c.random("logits", {rows, vocab}, DType::kF32, 3);
  const uint64_t key = random_key(c.seed(), "targets");
  const Operand targets = c.integers("targets", {rows}, [&](int64_t n) { return random_below(key, n, vocab); });
  const Operand losses = c.output("losses", {rows}, DType::kF64);
  const Operand dlogits = kind == Dlogits::kNone      ? Operand{}
                          : kind == Dlogits::kInPlace ? logits
                                                      : c.output("dlogits", {rows, vocab});
  c.run([&](Ctx& ctx, Side side) {
    cross_entropy(ctx, {.logits = logits[side],
                        .targets = targets[side],
                        .losses = losses[side],
                        .dlogits = dlogits[side],
                        .weights = weights[side],
                        .scale = 1.0 / 1024});
  });
  const double bound = sum_epsilons(terms_of_a_thread(vocab));
  c.expect_close(losses, bound / 4);
  if (kind == Dlogits::kNone) return;
  c.expect_close(dlogits, by_dtype(c, bound));
  c.expect_norm_close(dlogits, by_dtype(c, bound * 0x1p-23, 0x1p-8));
}

}  // namespace

ConformanceCases cross_entropy_cases() {
  ConformanceCases cases;
  struct Size {
    int64_t rows, vocab;
  };
  // The sizes take the narrow block, the wide one, and rows that are read again: not in packs, or too long.
  for (const auto [n, v] : {Size{1, 32000}, Size{70, 32000}, Size{64, 37}, Size{16, 40}, Size{8, 4096}, Size{8, 4100},
                            Size{5, 32768}, Size{5, 32772}, Size{3, 50001}, Size{2, 131072}, Size{0, 40}}) {
    const std::string shape = fmt::format("N{}_V{}", n, v);
    cases.push_back({"cross_entropy", shape, [=](Conformance& c) {
                       cross_entropy_case(c, n, v, Dlogits::kApart);
                     }});
    cases.push_back({.op = "cross_entropy",
                     .shape = shape + "_loss",
                     .check = [=](Conformance& c) { cross_entropy_case(c, n, v, Dlogits::kNone); },
                     .bf16 = false});
    cases.push_back({"cross_entropy", shape + "_weighted", [=](Conformance& c) {
                       cross_entropy_case(c, n, v, Dlogits::kWeighted);
                     }});
    cases.push_back({.op = "cross_entropy",
                     .shape = shape + "_in_place",
                     .check = [=](Conformance& c) { cross_entropy_case(c, n, v, Dlogits::kInPlace); },
                     .bf16 = false});
  }
  cases.push_back({.op = "cross_entropy",  // 8.4 GiB of the GPU's memory
                   .shape = "N70000_V32000_in_place",
                   .check = [](Conformance& c) { cross_entropy_case(c, 20, 32000, Dlogits::kInPlace, 3500); },
                   .bf16 = false,
                   .large = true});
  return cases;
}

}  // namespace mixtune
