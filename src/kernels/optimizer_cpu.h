// CPU twins of optimizer.h. Lists are cut into fixed blocks, so that nothing depends on the number of threads.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>

#include "base/random.h"
#include "kernels/adamw_math.h"

namespace mixtune::cpu {

constexpr int64_t kOptimizerBlock = 1 << 15;  // elements a task

// The blocks of a list of tensors, in the list's order; none holds elements of two tensors.
class ListBlocks {
 public:
  struct Range {
    int64_t tensor, begin, end;  // elements [begin, end) of a tensor
  };

  template <class Elements>  // elements(i) of tensor i
  ListBlocks(Stack& stack, int64_t tensors, const Elements& elements)
      : tensors_(tensors), last_(stack.push("blocks of a list", {2, tensors}, DType::kI64).as<int64_t>()) {
    int64_t last = 0;
    for (int64_t i = 0; i < tensors; ++i) {
      last_[tensors + i] = elements(i);
      last_[i] = last += (elements(i) + kOptimizerBlock - 1) / kOptimizerBlock;
    }
  }

  int64_t count() const { return tensors_ == 0 ? 0 : last_[tensors_ - 1]; }
  Range operator[](int64_t block) const {
    const int64_t tensor = std::upper_bound(last_, last_ + tensors_, block) - last_;
    const int64_t begin = (tensor == 0 ? block : block - last_[tensor - 1]) * kOptimizerBlock;
    return {tensor, begin, std::min(begin + kOptimizerBlock, last_[tensors_ + tensor])};
  }

 private:
  int64_t tensors_;
  int64_t* last_;  // [2, tensors]: one past the last block of each; the elements of each
};

inline float number(BF16 x) {
  return to_float(x);
}
template <class S>
S number(S x) {
  return x;
}

// Calls op(S{}) for fp32, bf16 or, in the oracle, fp64.
template <class Op>
auto on_float(DType dtype, Op&& op) {
  if (dtype == DType::kF64) return op(double{});
  if (dtype == DType::kBF16) return op(BF16{});
  MT_CHECK(dtype == DType::kF32);
  return op(float{});
}

template <class S>
double sum_of_squares(const S* x, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(number(x[i])) * static_cast<double>(number(x[i]));
  return sum;
}

inline void sum_of_squares(Ctx& ctx, std::span<const Tensor> tensors, const Tensor& sum) {
  const Stack::Frame frame(ctx.stack);
  const ListBlocks blocks(ctx.stack, std::ssize(tensors), [&](int64_t i) { return tensors[i].elements(); });
  double* partial = ctx.stack.push("gradient norm sums", {blocks.count()}, DType::kF64).as<double>();
#pragma omp parallel for
  for (int64_t b = 0; b < blocks.count(); ++b) {
    const auto [tensor, begin, end] = blocks[b];
    partial[b] = on_float(tensors[tensor].dtype, [&, t = tensor, i = begin, n = end - begin]<class S>(S) {
      return sum_of_squares(tensors[t].template as<S>() + i, n);
    });
  }
  double total = 0;
  for (int64_t b = 0; b < blocks.count(); ++b) total += partial[b];
  *sum.as<double>() = total;
}

inline void clip_scale(const ClipScale& args) {
  const double squares = *args.squares.as<double>();
  bool finite = std::isfinite(squares);
  for (int64_t i = 0; args.guards && i < args.guards.elements(); ++i)
    finite = finite && std::isfinite(args.guards.as<double>()[i]);
  double& scale = *args.scale.as<double>();
  if (!finite)
    scale = std::numeric_limits<double>::quiet_NaN();
  else
    scale = args.max_norm > 0 ? std::min(1.0, args.max_norm / (std::sqrt(squares) + 1e-6)) : 1.0;
}

// Converts x to the storage S, stochastically where that is bf16.
template <class S, class C>
S stored(C x, uint32_t word, int first_bit) {
  if constexpr (std::is_same_v<S, BF16>)
    return {stochastic_bf16_bits(std::bit_cast<uint32_t>(x), word >> first_bit)};
  else
    return x;
}

// Updates elements [begin, end) of a tensor with weights W, gradients G and moments M.
template <class W, bool kMaster, class G, class M>
void adamw_range(const AdamWTensor& tensor, const AdamWStep& args, int64_t begin, int64_t end) {
  using C = std::conditional_t<std::is_same_v<W, double>, double, float>;
  constexpr bool kRounds = (std::is_same_v<W, BF16> && !kMaster) || std::is_same_v<M, BF16>;
  const AdamWScalars<C> scalars(args);
  const C scale = static_cast<C>(*args.grad_scale.as<double>()), rate = decay_rate<C>(args, tensor);
  W* weight = tensor.weight.as<W>();
  C* master = kMaster ? tensor.master.as<C>() : nullptr;
  const G* grad = tensor.grad.as<G>();
  M *first = tensor.m.as<M>(), *second = tensor.v.as<M>();
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const uint32_t word = kRounds ? rounding_bits(tensor.key, tensor.first + i) : 0;
    C m = number(first[i]), v = number(second[i]);
    scalars.update_moments(number(grad[i]) * scale, m, v);
    const C change = scalars.step_size * m / scalars.denominator(std::sqrt(v));
    if constexpr (kMaster) {
      master[i] = updated_weight(master[i], rate, change);
      weight[i] = to_bf16(master[i]);
    } else {
      weight[i] = stored<W>(updated_weight<C>(number(weight[i]), rate, change), word, kWeightBits);
    }
    first[i] = stored<M>(m, word, kFirstMomentBits);
    second[i] = stored<M>(v, word, kSecondMomentBits);
  }
}

inline void adamw_range(const AdamWTensor& tensor, const AdamWStep& args, int64_t begin, int64_t end) {
  if (tensor.weight.dtype == DType::kF64) return adamw_range<double, false, double, double>(tensor, args, begin, end);
  on_float(tensor.grad.dtype, [&]<class G>(G) {
    on_float(tensor.m.dtype, [&]<class M>(M) {
      if constexpr (!std::is_same_v<G, double> && !std::is_same_v<M, double>) {
        if (tensor.master)
          adamw_range<BF16, true, G, M>(tensor, args, begin, end);
        else if (tensor.weight.dtype == DType::kBF16)
          adamw_range<BF16, false, G, M>(tensor, args, begin, end);
        else
          adamw_range<float, false, G, M>(tensor, args, begin, end);
      }
    });
  });
}

inline void adamw(Ctx& ctx, std::span<const AdamWTensor> tensors, const AdamWStep& args) {
  if (std::isnan(*args.grad_scale.as<double>())) return;
  const Stack::Frame frame(ctx.stack);
  const ListBlocks blocks(ctx.stack, std::ssize(tensors), [&](int64_t i) { return tensors[i].weight.elements(); });
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < blocks.count(); ++b) {
    const auto [tensor, begin, end] = blocks[b];
    adamw_range(tensors[tensor], args, begin, end);
  }
}

}  // namespace mixtune::cpu
