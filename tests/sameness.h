// Criteria of sameness (docs/design.md, section 4) between tensors of two trainings.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "state/state.h"

namespace mixtune {

inline double element(const Tensor& t, int64_t i) {
  return t.dtype == DType::kF64 ? t.as<double>()[i] : t.as<float>()[i];
}

// A host copy of a tensor of any device and float dtype, as fp32 (fp64 stays).
class HostCopy {
 public:
  HostCopy(Ctx& ctx, const Tensor& from) : tensor_(from) {
    if (!from) return;
    bytes_.resize(from.bytes());
    tensor_.data = bytes_.data();
    tensor_.device = {};
    copy(ctx, from, tensor_);
    wait(ctx);
    if (from.dtype == DType::kBF16) widen();
  }
  const Tensor& tensor() const { return tensor_; }

 private:
  void widen() {
    std::vector<char> wide(tensor_.elements() * sizeof(float));
    for (int64_t i = 0; i < tensor_.elements(); ++i)
      reinterpret_cast<float*>(wide.data())[i] = to_float(tensor_.as<BF16>()[i]);
    bytes_ = std::move(wide);
    tensor_.data = bytes_.data();
    tensor_.dtype = DType::kF32;
  }

  std::vector<char> bytes_;
  Tensor tensor_;
};

// Host copies of one kind of tensor of a whole State.
class HostCopies {
 public:
  HostCopies(Ctx& ctx, const State& state, const std::function<Tensor(int)>& tensor_of) {
    for (int p = 0; p < state.size(); ++p) copies_.push_back(std::make_unique<HostCopy>(ctx, tensor_of(p)));
  }
  const Tensor& operator[](int param) const { return copies_[param]->tensor(); }

 private:
  std::vector<std::unique_ptr<HostCopy>> copies_;
};

// Squared 2-norms of a difference and of the reference it is measured by.
struct NormError {
  double difference = 0, reference = 0;

  void add(const Tensor& actual, const Tensor& expected) {
    for (int64_t i = 0; i < expected.elements(); ++i) {
      difference += std::pow(element(actual, i) - element(expected, i), 2);
      reference += std::pow(element(expected, i), 2);
    }
  }
  // Of weights: measured by the update that takes `start` to `expected`.
  void add_update(const Tensor& actual, const Tensor& expected, const Tensor& start) {
    for (int64_t i = 0; i < expected.elements(); ++i) {
      difference += std::pow(element(actual, i) - element(expected, i), 2);
      reference += std::pow(element(expected, i) - element(start, i), 2);
    }
  }
  double relative() const { return std::sqrt(difference / reference); }
};

// Calls check(hub name, slice of tensor_of(param)) for every Hugging Face tensor of a State.
inline void for_each_hub_tensor(const State& state, const std::function<Tensor(int)>& tensor_of,
                                const std::function<void(const HfBlock&, const Tensor&)>& check) {
  for (int p = 0; p < state.size(); ++p)
    for (const HfBlock& slice : state.spec(p).blocks) {
      const Tensor whole = tensor_of(p);
      check(slice, whole.view({whole.elements()}).slice(slice.offset, slice.elements()));
    }
}

// Compares one kind of tensor (gradients, moments) of a whole model: every tensor must be within `bound` relative norm,
// and one whose exact value is zero within 1e-6 of the global norm. Gives the tensor that is farthest off.
struct FarthestTensor {
  std::string name;
  double relative = 0;
};
inline FarthestTensor expect_tensors_same(const std::string& what, const State& state,
                                          const std::function<Tensor(int)>& actual,
                                          const std::function<Tensor(const HfBlock&)>& expected, double bound) {
  double global = 0;
  for_each_hub_tensor(state, actual, [&](const HfBlock& slice, const Tensor&) {
    const Tensor reference = expected(slice);
    for (int64_t i = 0; i < reference.elements(); ++i) global += std::pow(element(reference, i), 2);
  });
  FarthestTensor farthest;
  for_each_hub_tensor(state, actual, [&](const HfBlock& slice, const Tensor& tensor) {
    NormError error;
    error.add(tensor, expected(slice));
    if (error.reference < 1e-14 * global) {
      EXPECT_LT(std::sqrt(error.difference), 1e-6 * std::sqrt(global))
          << what << " of " << slice.name << ", exactly zero";
      return;
    }
    EXPECT_LT(error.relative(), bound) << what << " of " << slice.name;
    if (error.relative() > farthest.relative) farthest = {slice.name, error.relative()};
  });
  return farthest;
}

}  // namespace mixtune
