#include "model/pissa.h"

#include <algorithm>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "kernels/cast.h"
#include "model/fill_values.h"
#include "model/lora.h"
#include "model/principal_pair.h"

namespace mixtune {

namespace {

// A block of a parameter.
struct Slot {
  int param = -1;
  const HfBlock* block = nullptr;
};

// A weight that has a pair, and its factors: those that are trained, and what they began as.
struct AdaptedWeight {
  std::string name;
  Slot weight;
  Slot a, b, initial_a, initial_b;

  int64_t out() const { return weight.block->shape()[0]; }
  int64_t in() const { return weight.block->shape()[1]; }
  int64_t rank() const { return a.block->box.shape()[0]; }
};

std::vector<AdaptedWeight> adapted_weights(const State& state) {
  std::map<std::string, Slot> trained, initial;
  for (int param = 0; param < state.size(); ++param)
    if (state.spec(param).origin == ParamSpec::Origin::kInitialised)
      for (const HfBlock& block : state.spec(param).blocks)
        (state.spec(param).is_initial_pair() ? initial : trained)[block.name] = {param, &block};
  std::vector<AdaptedWeight> weights;
  for (int param = 0; param < state.size(); ++param) {
    if (state.spec(param).origin != ParamSpec::Origin::kStored) continue;
    for (const HfBlock& block : state.spec(param).blocks) {
      const std::string module = block.name.substr(0, block.name.rfind(".weight")), a = lora_a_name(module),
                        b = lora_b_name(module);
      if (trained.contains(a))
        weights.push_back({block.name, {param, &block}, trained.at(a), trained.at(b), initial.at(a), initial.at(b)});
    }
  }
  return weights;
}

Tensor held(const State& state, const Slot& slot) {
  const Tensor weight = state.weight(slot.param);
  return weight.view({weight.elements()}).slice(slot.block->offset, slot.block->elements());
}

// Copies a weight between its device and fp32 numbers in host memory, rounded once to its type.
class HostCopy {
 public:
  std::span<float> read(Ctx& ctx, const Tensor& from) {
    values_.resize(static_cast<size_t>(from.elements()));
    if (from.dtype == DType::kF32) {
      copy(ctx, from, host_tensor(values_.data(), {from.elements()}));
      wait(ctx);
      return values_;
    }
    MT_CHECK(from.dtype == DType::kBF16);
    narrow_.resize(values_.size());
    copy(ctx, from, host_tensor(narrow_.data(), {from.elements()}));
    wait(ctx);
#pragma omp parallel for
    for (size_t i = 0; i < values_.size(); ++i) values_[i] = to_float(narrow_[i]);
    return values_;
  }

  // What read() returned, and the caller has changed.
  void write(Ctx& ctx, const Tensor& to) {
    const bool wide = to.dtype == DType::kF32;
#pragma omp parallel for
    for (size_t i = 0; i < (wide ? 0 : values_.size()); ++i) narrow_[i] = to_bf16(values_[i]);
    copy(ctx, wide ? host_tensor(values_.data(), {to.elements()}) : host_tensor(narrow_.data(), {to.elements()}), to);
    wait(ctx);
  }

 private:
  std::vector<float> values_;
  std::vector<BF16> narrow_;
};

// The tensors as they are saved: A above A0, B left of -B0.
struct SavedPair {
  std::vector<float> a, b;
};

SavedPair saved_pair(const PrincipalPair& pair, int64_t rank) {
  SavedPair saved = {pair.a, {}};
  saved.a.insert(saved.a.end(), pair.a.begin(), pair.a.end());
  saved.b.resize(2 * pair.b.size());
  for (size_t i = 0; i < pair.b.size(); ++i) {
    const size_t row = i / static_cast<size_t>(rank), column = i % static_cast<size_t>(rank);
    float* const to = saved.b.data() + (2 * row * static_cast<size_t>(rank)) + column;
    to[0] = pair.b[i];
    to[rank] = -pair.b[i];
  }
  return saved;
}

// Fills what this rank owns of the slot's block.
void fill_slot(Ctx& ctx, const State& state, const Slot& slot, const std::vector<float>& saved) {
  for (const auto& [block, first, values] : owned_blocks(state, slot.param))
    if (&block == slot.block)
      fill_values(ctx, block, first, values, [&](int64_t place) { return saved[static_cast<size_t>(place)]; });
}

void round_factor(DType dtype, std::vector<float>& values) {
  if (dtype != DType::kBF16) return;
  for (float& value : values) value = to_float(to_bf16(value));
}

// w += s minus_b a
void add_product(const AdaptedWeight& of, double s, std::span<const float> minus_b, std::span<const float> a,
                 std::span<float> w) {
  const int64_t in = of.in(), rank = of.rank();
#pragma omp parallel
  {
    std::vector<double> sums(static_cast<size_t>(in));
#pragma omp for
    for (int64_t i = 0; i < of.out(); ++i) {
      float* const row = w.data() + i * in;
      std::copy_n(row, in, sums.begin());
      for (int64_t k = 0; k < rank; ++k) {
        const double factor = s * minus_b[static_cast<size_t>(i * rank + k)];
        const float* const vector = a.data() + k * in;
        for (int64_t j = 0; j < in; ++j) sums[static_cast<size_t>(j)] += factor * vector[j];
      }
      for (int64_t j = 0; j < in; ++j) row[j] = static_cast<float>(sums[static_cast<size_t>(j)]);
    }
  }
}

}  // namespace

void initialise_principal_adapters(Ctx& ctx, uint64_t seed, double s, State& state) {
  HostCopy weight;
  for (const AdaptedWeight& of : adapted_weights(state)) {
    const Tensor from = held(state, of.weight);
    PrincipalPair pair =
        principal_pair(weight.read(ctx, from), of.out(), of.in(), of.rank(), s, random_key(seed, of.name));
    for (std::vector<float>* factor : {&pair.a, &pair.b}) round_factor(from.dtype, *factor);
    const SavedPair saved = saved_pair(pair, of.rank());
    for (const Slot& slot : {of.a, of.initial_a}) fill_slot(ctx, state, slot, saved.a);
    for (const Slot& slot : {of.b, of.initial_b}) fill_slot(ctx, state, slot, saved.b);
  }
  for (int param = 0; param < state.size(); ++param)
    if (state.spec(param).origin == ParamSpec::Origin::kInitialised) state.publish(ctx, param);
  state.share_weights(ctx);
  wait(ctx);
}

void take_off_principal_pairs(Ctx& ctx, double s, State& state) {
  HostCopy weight, a, minus_b;
  for (const AdaptedWeight& of : adapted_weights(state)) {
    const std::span<const float> vectors = a.read(ctx, held(state, of.initial_a)),
                                 factors = minus_b.read(ctx, held(state, of.initial_b));
    const Tensor to = held(state, of.weight);
    add_product(of, s, factors, vectors, weight.read(ctx, to));
    weight.write(ctx, to);
  }
  state.weights_changed();
}

}  // namespace mixtune
