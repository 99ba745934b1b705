// State: the one owner of weights, gradients and optimizer moments.
//
// A parameter is the tensor a kernel reads (say, gate_up of all experts of a layer). It is put together from slices of
// Hugging Face tensors, the only names used on disk.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tensor/ctx.h"

namespace mixtune {

// Rows [begin, begin + rows) of the first dimension of the Hugging Face tensor `name`, which has shape `shape`. They
// stand in the parameter contiguously from element `offset` on.
struct HfSlice {
  std::string name;
  Shape shape;
  int64_t begin = 0;
  int64_t rows = 0;
  int64_t offset = 0;

  int64_t elements() const { return shape[0] == 0 ? 0 : shape.elements() / shape[0] * rows; }
};

struct ParamSpec {
  std::string name;  // for messages and reports; never on disk
  Shape shape;
  std::vector<HfSlice> slices;  // in the order of their offsets, without holes
  bool trainable = true;
};

// In what each part of the state is held. A weight of another dtype than fp32 may have an fp32 master.
struct StateTypes {
  DType weights = DType::kF32;
  DType gradients = DType::kF32;
  DType moments = DType::kF32;
  bool masters = false;

  static StateTypes all(DType dtype) { return {dtype, dtype, dtype, false}; }
};

class State {
 public:
  enum class Purpose { kInference, kTraining };  // inference: weights only

  // Zeroed. Throws UserError where the device has not enough memory for it.
  State(std::vector<ParamSpec> specs, Device device, const StateTypes& types, Purpose purpose);
  State(std::vector<ParamSpec> specs, Device device, DType dtype, Purpose purpose)
      : State(std::move(specs), device, StateTypes::all(dtype), purpose) {}

  int size() const { return static_cast<int>(specs_.size()); }
  const ParamSpec& spec(int param) const { return specs_[param]; }
  DType dtype() const { return types_.weights; }
  const StateTypes& types() const { return types_; }
  Device device() const { return device_; }
  bool is_training() const { return purpose_ == Purpose::kTraining; }
  int64_t elements() const;
  size_t bytes() const;  // of all that it holds

  // The weight, ready to be read by an op; valid until release.
  Tensor get(int param);
  void release(int param);
  // The weight, to be written by the optimizer step; and its fp32 master, empty where there is none.
  Tensor weight(int param) const { return weights_[param]; }
  Tensor master(int param) const { return masters_[param]; }
  // What load and initialise write, and save reads: the master where there is one, else the weight. After a write,
  // publish brings the weight in line.
  Tensor primary(int param) const { return masters_[param] ? masters_[param] : weights_[param]; }
  void publish(Ctx& ctx, int param);

  struct Gradient {
    Tensor tensor;    // empty where the parameter is not trained
    bool accumulate;  // false: write over what is there (the first of a step); true: add to it
  };
  // Where this micro-batch's gradient of `param` goes. The writer calls notify when it is complete.
  Gradient gradient(int param);
  void notify(int param);
  // Forgets the gradients: the next ones are written, not added.
  void begin_step();
  // The finished gradient: zero where no micro-batch of the step wrote one.
  Tensor finished_gradient(Ctx& ctx, int param);

  Tensor first_moment(int param) const { return first_moments_[param]; }
  Tensor second_moment(int param) const { return second_moments_[param]; }

  const std::vector<std::unique_ptr<Arena>>& arenas() const { return arenas_; }

 private:
  Arena& add_arena(const char* name, size_t bytes);

  std::vector<ParamSpec> specs_;
  StateTypes types_;
  Device device_;
  Purpose purpose_;
  std::vector<std::unique_ptr<Arena>> arenas_;
  std::vector<Tensor> weights_, masters_, gradients_, first_moments_, second_moments_;
  std::vector<bool> written_;  // since begin_step
};

// A weight while ops read it: got here, released at the end of the scope.
class WeightUse {
 public:
  WeightUse(State& state, int param) : state_(state), param_(param), tensor_(state.get(param)) {}
  ~WeightUse() { state_.release(param_); }
  WeightUse(const WeightUse&) = delete;
  WeightUse& operator=(const WeightUse&) = delete;
  const Tensor& operator*() const { return tensor_; }

 private:
  State& state_;
  int param_;
  Tensor tensor_;
};

}  // namespace mixtune
