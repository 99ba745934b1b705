// sum_of_squares, clip_scale, adamw, add_sum, cast and fill_normal. On the CPU operands are fp32; where the op's
// storage matters (stochastic rounding) the case casts them to it and back, which is exact.
#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <utility>

#include "conformance/cases.h"
#include "kernels/cast.h"
#include "kernels/fill.h"
#include "kernels/optimizer.h"
#include "kernels/reduce.h"

namespace mixtune {

namespace {

constexpr int64_t kLong = (int64_t{1} << 31) + 70001;  // more elements than 32 bits count

Tensor flat(const Tensor& tensor, int64_t begin, int64_t count) {
  return tensor.view({tensor.elements()}).slice(begin, count);
}

// A GPU thread adds at most 32 squares in fp32 for each place of a vector, and 256 where a tensor is not aligned: so
// many roundings by half an epsilon at worst, in a sum of positive terms.
void sum_of_squares_case(Conformance& c, const std::vector<int64_t>& sizes, int64_t offset) {
  std::vector<Operand> x;
  for (const int64_t n : sizes) x.push_back(c.random(fmt::format("x{}", x.size()), {n + offset}));
  const Operand other = c.random("other", {1000}, c.dtype() == DType::kF32 ? DType::kBF16 : DType::kF32);
  const Operand sum = c.output("sum", {1}, DType::kF64);
  c.run([&](Ctx& ctx, Side side) {
    std::vector<Tensor> tensors = {other[side]};
    for (size_t i = 0; i < x.size(); ++i) tensors.push_back(x[i][side].slice(offset, sizes[i]));
    sum_of_squares(ctx, tensors, sum[side]);
  });
  c.expect_close(sum, offset == 0 ? 16 : 128);
}

// Zeros, and a tail that the CPU sums too: 4 GiB (bf16) or 8 GiB (fp32) of the GPU's memory.
void long_sum_case(Conformance& c) {
  constexpr int64_t kTail = 1000;
  const Operand tail = c.random("tail", {kTail}), sum = c.output("sum", {1}, DType::kF64);
  c.run([&](Ctx& ctx, Side side) {
    const Frame frame(ctx);
    Tensor x = tail[side];
    if (side == Side::kGpu) {
      x = ctx.stack.push("x", {kLong}, c.dtype());
      zero(ctx, x);
      copy(ctx, tail[side], x.slice(kLong - kTail, kTail));
    }
    sum_of_squares(ctx, std::vector{x}, sum[side]);
  });
  c.expect_close(sum, 16);
}

// fp64 additions in another order: n roundings by 2^-53 at worst.
void add_sum_case(Conformance& c, int64_t n) {
  const Operand values = c.doubles("values", {n}, [](int64_t i) { return 1 + std::sin(static_cast<double>(i)); });
  const Operand total = c.doubles("total", {1}, [](int64_t) { return 0.25; });
  c.run([&](Ctx& ctx, Side side) { add_sum(ctx, values[side], total[side]); });
  c.expect_close(total, static_cast<double>(n + 1) * 0x1p-30);
}

void clip_scale_case(Conformance& c, double squares_value, double max_norm, const std::vector<double>& guards_value) {
  const Operand squares = c.doubles("squares", {1}, [=](int64_t) { return squares_value; });
  const Operand guards =
      c.doubles("guards", {static_cast<int64_t>(guards_value.size())}, [&](int64_t i) { return guards_value[i]; });
  const Operand scale = c.doubles("scale", {1}, [](int64_t) { return -1; });
  c.run([&](Ctx& ctx, Side side) {
    clip_scale(ctx, {.squares = squares[side],
                     .guards = guards_value.empty() ? Tensor{} : guards[side],
                     .scale = scale[side],
                     .max_norm = max_norm});
  });
  c.expect_equal(scale);  // fp64 on both sides; the same NaN
}

struct Storage {
  DType weight;
  bool master;
  DType grad, moment;
};

struct AdamWOperands {
  Operand weight, master, grad, m, v;
};

// Moments are as large as the gradients, so that every term of every formula counts.
AdamWOperands adamw_operands(Conformance& c, const Storage& storage, int64_t n) {
  return {.weight = storage.master ? c.output("weight", {n}, storage.weight) : c.random("weight", {n}, storage.weight),
          .master = c.random("master", {n}, DType::kF32),
          .grad = c.random("grad", {n}, storage.grad),
          .m = c.random("m", {n}, storage.moment, 0.1),
          .v = c.random("v", {n}, storage.moment, 1e-3, 0.01)};
}

// The tensors of one side in their storage; on the CPU copies, which finish() brings back.
class Stored {
 public:
  Stored(Ctx& ctx, Side side) : ctx_(ctx), side_(side) {}

  AdamWTensor tensor(const AdamWOperands& operands, const Storage& storage) {
    return {.weight = take(operands.weight, storage.weight),
            .master = storage.master ? operands.master[side_] : Tensor{},
            .grad = take(operands.grad, storage.grad),
            .m = take(operands.m, storage.moment),
            .v = take(operands.v, storage.moment),
            .weight_decay = 0.1,
            .key = 0x123456789ABCDEF};
  }
  void finish() {
    for (const auto& [narrow, wide] : taken_) cast(ctx_, narrow, wide);
  }

 private:
  Tensor take(const Operand& operand, DType dtype) {
    const Tensor wide = operand[side_];
    if (wide.dtype == dtype) return wide;
    const Tensor narrow = ctx_.stack.push("operand in its storage", wide.shape, dtype);
    cast(ctx_, wide, narrow);
    taken_.emplace_back(narrow, wide);
    return narrow;
  }

  Ctx& ctx_;
  Side side_;
  std::vector<std::pair<Tensor, Tensor>> taken_;
};

AdamWTensor part_of(AdamWTensor tensor, int64_t begin, int64_t count) {
  for (Tensor* t : {&tensor.weight, &tensor.master, &tensor.grad, &tensor.m, &tensor.v})
    if (*t) *t = flat(*t, begin, count);
  tensor.first += begin;
  return tensor;
}

AdamWStep adamw_settings(const Tensor& grad_scale) {
  return {.learning_rate = 0.01, .beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-6, .step = 7, .grad_scale = grad_scale};
}

// fp32: three roundings of half an epsilon each, of terms no larger than the tensors' largest. bf16: both sides round
// the same bits by the same random ones, unless those fp32 roundings carry one past a boundary: then they are a unit
// apart, two epsilons at most. They carry with a probability of about 2^-14, so that the norm of the differences is
// 2^-14 of the tensor's; with other random bits it would be 2^-9.
void expect_stored_close(Conformance& c, const Operand& operand, DType dtype) {
  c.expect_close(operand, 2);
  if (dtype == DType::kBF16) c.expect_norm_close(operand, 0x1p-12);
}

void expect_adamw_close(Conformance& c, const AdamWOperands& operands, const Storage& storage) {
  expect_stored_close(c, operands.weight, storage.weight);
  expect_stored_close(c, operands.master, DType::kF32);
  expect_stored_close(c, operands.m, storage.moment);
  expect_stored_close(c, operands.v, storage.moment);
}

// A tensor of n elements, cut after `cut` and from there into `parts`.
void adamw_case(Conformance& c, const Storage& storage, int64_t n, int64_t cut, int64_t parts = 1) {
  const AdamWOperands operands = adamw_operands(c, storage, n);
  const Operand scale = c.doubles("scale", {1}, [](int64_t) { return 0.7; });
  c.run([&](Ctx& ctx, Side side) {
    const Frame frame(ctx);
    Stored stored(ctx, side);
    const AdamWTensor whole = stored.tensor(operands, storage);
    std::vector<AdamWTensor> tensors = {part_of(whole, 0, cut)};
    for (int64_t p = 0; p < parts; ++p) {
      const int64_t begin = cut + (n - cut) * p / parts, end = cut + (n - cut) * (p + 1) / parts;
      tensors.push_back(part_of(whole, begin, end - begin));
    }
    adamw(ctx, tensors, adamw_settings(scale[side]));
    stored.finish();
  });
  expect_adamw_close(c, operands, storage);
}

void adamw_nan_case(Conformance& c) {
  const Storage storage{c.dtype(), false, c.dtype(), c.dtype()};
  const AdamWOperands operands = adamw_operands(c, storage, 5000);
  const Operand scale = c.doubles("scale", {1}, [](int64_t) { return std::numeric_limits<double>::quiet_NaN(); });
  c.run([&](Ctx& ctx, Side side) {
    const Frame frame(ctx);
    Stored stored(ctx, side);
    adamw(ctx, std::vector{stored.tensor(operands, storage)}, adamw_settings(scale[side]));
    stored.finish();
  });
  for (const Operand& operand : {operands.weight, operands.m, operands.v}) c.expect_equal(operand);
}

// A tensor past 2^31 elements, of which the CPU has the last ones: 16 GiB of the GPU's memory.
void adamw_long_case(Conformance& c) {
  constexpr int64_t kTail = 50001;
  const Storage storage{DType::kBF16, false, DType::kBF16, DType::kBF16};
  const AdamWOperands operands = adamw_operands(c, storage, kTail);
  const Operand scale = c.doubles("scale", {1}, [](int64_t) { return 0.7; });
  c.run([&](Ctx& ctx, Side side) {
    const Frame frame(ctx);
    Stored stored(ctx, side);
    AdamWTensor tail = stored.tensor(operands, storage);
    tail.first = kLong - kTail;
    AdamWTensor tensor = tail;
    if (side == Side::kGpu) {
      tensor.first = 0;
      for (Tensor* t : {&tensor.weight, &tensor.grad, &tensor.m, &tensor.v}) {
        const Tensor all = ctx.stack.push("long tensor", {kLong}, DType::kBF16);
        zero(ctx, all);
        copy(ctx, *t, all.slice(kLong - kTail, kTail));
        *t = all;
      }
    }
    adamw(ctx, std::vector{tensor}, adamw_settings(scale[side]));
    if (side == Side::kGpu)
      for (const auto& [from, to] : {std::pair{tensor.weight, tail.weight}, {tensor.m, tail.m}, {tensor.v, tail.v}})
        copy(ctx, from.slice(kLong - kTail, kTail), to);
    stored.finish();
  });
  expect_adamw_close(c, operands, storage);
}

// Casts from the case's dtype to the other one; `offset` elements apart, so that vectors may not fit.
void cast_case(Conformance& c, int64_t n, int64_t offset, int64_t times = 1) {
  c.repeat(times);
  const Operand x = c.random("x", {n});
  const Operand y = c.output("y", {n}, c.dtype() == DType::kF32 ? DType::kBF16 : DType::kF32);
  c.run([&](Ctx& ctx, Side side) {
    const Tensor from = x[side], to = y[side];
    cast(ctx, from.slice(0, offset), to.slice(0, offset));
    cast(ctx, from.slice(offset, from.rows() - offset), to.slice(offset, to.rows() - offset));
  });
  c.expect_equal(y);
}

// Casts every finite fp16, two to an int32.
void cast_fp16_case(Conformance& c) {
  constexpr int64_t kHalves = 1 << 16;
  const auto half = [](int64_t bits) {
    return (bits & 0x7C00) == 0x7C00 ? bits & 0x83FF : bits;
  };
  const Operand x = c.integers("x", {kHalves / 2}, [&](int64_t i) { return half(2 * i) | half(2 * i + 1) << 16; });
  const Operand y = c.output("y", {kHalves});
  c.run([&](Ctx& ctx, Side side) { cast(ctx, {x[side].data, {kHalves}, DType::kF16, ctx.device}, y[side]); });
  c.expect_equal(y);
}

// A GPU's normal is computed in fp32. Its angle is off by 2^-25 of a turn, 2e-7 in the cosine and as much times the
// radius (up to 6) in the result: 3 epsilons of the largest, and some for logf and sqrtf. bf16: half a unit.
void fill_normal_case(Conformance& c, int64_t n, int64_t first) {
  const Operand x = c.output("x", {n});
  c.run([&](Ctx& ctx, Side side) {
    fill_normal(ctx, {.tensor = x[side], .key = c.seed(), .first = first, .mean = 2, .deviation = 0.5});
  });
  c.expect_close(x, c.dtype() == DType::kBF16 ? 1.01 : 8);
}

// Takes 4 GiB (bf16) or 8 GiB (fp32) of the GPU's memory.
void fill_long_case(Conformance& c) {
  constexpr int64_t kTail = 1000;
  const Operand x = c.output("x", {kTail});
  c.run([&](Ctx& ctx, Side side) {
    const Frame frame(ctx);
    if (side == Side::kCpu) return fill_normal(ctx, {.tensor = x[side], .key = 3, .first = kLong - kTail});
    const Tensor all = ctx.stack.push("long tensor", {kLong}, c.dtype());
    fill_normal(ctx, {.tensor = all, .key = 3});
    copy(ctx, all.slice(kLong - kTail, kTail), x[side]);
  });
  c.expect_close(x, c.dtype() == DType::kBF16 ? 1.01 : 8);
}

void add_adamw_cases(ConformanceCases& cases) {
  constexpr DType kTypes[] = {DType::kF32, DType::kBF16};
  for (const auto& [weight, master] : {std::pair{DType::kF32, false}, {DType::kBF16, true}, {DType::kBF16, false}})
    for (const DType grad : kTypes)
      for (const DType moment : kTypes) {
        const Storage storage{weight, master, grad, moment};
        const std::string name = fmt::format("weight_{}{}_grad_{}_moments_{}", dtype_name(weight),
                                             master ? "_with_master" : "", dtype_name(grad), dtype_name(moment));
        // Cut at a multiple of 8, so that all but the last elements go by vectors, over several chunks.
        cases.push_back({"adamw", name, [=](Conformance& c) { adamw_case(c, storage, 200003, 4096); }, true, false});
      }
  // The cases from here on use the storage of the case's dtype.
  const auto plain = [](Conformance& c) {
    return Storage{c.dtype(), false, c.dtype(), c.dtype()};
  };
  const auto with_master = [](Conformance& c) {
    return Storage{DType::kBF16, true, c.dtype(), c.dtype()};
  };
  const auto add = [&](const std::string& shape, const auto& storage, int64_t n, int64_t cut, int64_t parts = 1) {
    cases.push_back({"adamw", shape, [=](Conformance& c) {
                       adamw_case(c, storage(c), n, cut, parts);
                     }});
  };
  add("one", plain, 1, 0);
  add("three_and_four", plain, 7, 3);
  add("cut_at_an_odd_element", plain, 50001, 16385);
  add("cut_at_an_odd_element_with_master", with_master, 50001, 16385);
  add("cut_at_4", plain, 50001, 4);
  add("cut_at_2_with_master", with_master, 50001, 2);
  add("one_chunk", plain, 16384, 0);
  add("one_more_than_a_chunk", plain, 16385, 0);
  add("many_tensors", plain, 120011, 8, 150);  // more than a launch takes
  add("real_size", plain, 14336 * 128, 4096 * 128, 3);
  cases.push_back({"adamw", "nan_scale", adamw_nan_case});
  cases.push_back(large({"adamw", "past_2_31", adamw_long_case, false, true}));
}

}  // namespace

ConformanceCases optimizer_cases() {
  constexpr double kInfinity = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();
  ConformanceCases cases;
  const auto add = [&](const std::string& op, const std::string& shape, std::function<void(Conformance&)> check) {
    cases.push_back({op, shape, std::move(check)});
  };
  const auto add_once = [&](const std::string& op, const std::string& shape, std::function<void(Conformance&)> check) {
    cases.push_back({op, shape, std::move(check), true, false});
  };
  add("sum_of_squares", "one", [](Conformance& c) { sum_of_squares_case(c, {1}, 0); });
  add("sum_of_squares", "odd_sizes", [](Conformance& c) { sum_of_squares_case(c, {7, 0, 65536, 300001, 2048}, 0); });
  add("sum_of_squares", "unaligned", [](Conformance& c) { sum_of_squares_case(c, {5, 200001}, 1); });
  add("sum_of_squares", "many_tensors",
      [](Conformance& c) { sum_of_squares_case(c, std::vector<int64_t>(150, 777), 0); });
  cases.push_back(large({"sum_of_squares", "past_2_31", long_sum_case}));

  add_once("add_sum", "none", [](Conformance& c) { add_sum_case(c, 0); });
  add_once("add_sum", "one", [](Conformance& c) { add_sum_case(c, 1); });
  add_once("add_sum", "65536", [](Conformance& c) { add_sum_case(c, 65536); });
  add_once("add_sum", "odd", [](Conformance& c) { add_sum_case(c, 5003); });

  add_once("clip_scale", "clips", [](Conformance& c) { clip_scale_case(c, 17.3, 1, {0.5}); });
  add_once("clip_scale", "leaves", [](Conformance& c) { clip_scale_case(c, 0.3, 1, {}); });
  add_once("clip_scale", "off", [](Conformance& c) { clip_scale_case(c, 17.3, 0, {1, 2, 3}); });
  add_once("clip_scale", "bad_norm", [=](Conformance& c) { clip_scale_case(c, kInfinity, 1, {}); });
  add_once("clip_scale", "bad_guard", [=](Conformance& c) {
    std::vector<double> guards(70, 1);
    guards[69] = kNan;
    clip_scale_case(c, 1, 0, guards);
  });

  add_adamw_cases(cases);

  add("cast", "one", [](Conformance& c) { cast_case(c, 1, 0); });
  add("cast", "whole_blocks", [](Conformance& c) { cast_case(c, 3 * 4096, 0); });
  add("cast", "odd_size", [](Conformance& c) { cast_case(c, 100003, 0); });
  add("cast", "unaligned", [](Conformance& c) { cast_case(c, 100003, 3); });
  cases.push_back(large({"cast", "past_2_31", [](Conformance& c) {  // 12 GiB on the GPU
                           cast_case(c, 4099, 0, kLong / 4099 + 1);
                         }}));
  add("cast", "fp16", cast_fp16_case);

  add("fill_normal", "one", [](Conformance& c) { fill_normal_case(c, 1, 0); });
  add("fill_normal", "odd_size", [](Conformance& c) { fill_normal_case(c, 100003, 12345678901); });
  cases.push_back(large({"fill_normal", "past_2_31", fill_long_case}));
  return cases;
}

}  // namespace mixtune
