// State: the one owner of weights, gradients and optimizer moments. It has a layout, a storage of each kind, and two
// objects that move gradients and weights between the ranks that hold the same parameters.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/four_bit/nf4.h"
#include "state/gradient_sync.h"
#include "state/holders.h"
#include "state/param_layout.h"
#include "state/storage.h"
#include "state/weight_sync.h"
#include "tensor/ctx.h"

namespace mixtune {

// The dtype of each part of the state. A weight of another dtype than fp32 may have an fp32 master.
struct StateTypes {
  DType weights = DType::kF32;
  DType gradients = DType::kF32;
  DType moments = DType::kF32;
  bool masters = false;

  bool operator==(const StateTypes&) const = default;
  static StateTypes all(DType dtype) { return {dtype, dtype, dtype, false}; }
};

class State {
 public:
  enum class Purpose { kInference, kTraining };  // inference: weights only

  // Everything is zero at first. Where the device has too little memory, throws OutOfMemory to train, UserError
  // otherwise. The communicators outlive the state.
  State(std::vector<ParamSpec> specs, Device device, const StateTypes& types, Purpose purpose,
        const Replicas& replicas = {});
  State(std::vector<ParamSpec> specs, Device device, DType dtype, Purpose purpose)
      : State(std::move(specs), device, StateTypes::all(dtype), purpose) {}
  ~State();
  State(State&&) noexcept;

  const ParamLayout& layout() const;
  int size() const { return layout().size(); }
  const ParamSpec& spec(int param) const { return layout().spec(param); }
  const StateTypes& types() const;
  Device device() const;
  bool is_training() const;
  size_t bytes() const;  // all that is allocated
  const std::vector<std::unique_ptr<Arena>>& arenas() const;

  // The weight, ready to be read by the ctx's next op. Of one held as codes that is what they stand for, pushed on the
  // ctx's stack, which is the caller's to release.
  Tensor get(Ctx& ctx, int param);

  // A weight held as codes has no other tensor: weight() and primary() are empty. Gives a block of it these values [n],
  // as CodedWeights::encode does.
  bool is_coded(int param) const { return spec(param).is_coded(); }
  void encode(Ctx& ctx, int param, size_t block, const Tensor& values);
  const Nf4Tensor& nf4(Ctx& ctx, int param, size_t block);  // of a block, for who has codes for it already

  // Another number after each change of the weight. Who writes weights says so: all of them, or those that are trained.
  int64_t version(int param) const;
  void weights_changed();
  void weights_trained();

  GradientSync& gradients();
  WeightSync& weight_sync();

  // The weight, for the optimizer step to write. Of what this rank owns of the parameter: the fp32 master, empty where
  // there is none, and the moments.
  Tensor weight(int param) const;
  Tensor master(int param) const;
  Tensor first_moment(int param) const;
  Tensor second_moment(int param) const;
  // The tensor that load and initialise write: the master where there is one, else the weight. After a write, publish
  // brings the weight in line.
  Tensor primary(int param) const { return master(param) ? master(param) : weight(param); }
  void publish(Ctx& ctx, int param);
  // Gathers what each holder has loaded: the weights, and masters that each has whole. All ranks call this.
  void share_weights(Ctx& ctx);
  // The same of moments that each holder has whole.
  void share_moments(Ctx& ctx);

  // Calls `visit` with each parameter that this rank writes to a checkpoint, whole: its weight, or its master where
  // these are wanted and there is one. The holders of a bucket take turns to write it. Masters in pieces are gathered
  // on the stack, a round of turns at a time; `visit` has read them when it returns. All ranks call this, after
  // weight_sync().await_all.
  struct Saved {
    int param;
    Tensor values;
  };
  void for_each_saved(Ctx& ctx, bool masters, const std::function<void(std::span<const Saved>)>& visit) const;
  bool saves(int param) const;         // whether this rank writes the parameter
  size_t stack_bytes_to_save() const;  // the most that for_each_saved pushes with `masters`

  // Whether all holders of a weight, or of a master that each has whole, have the same bits: "", or which ranks differ
  // from which other one, and in what. `rank` is this rank's number among all. The holders of a parameter get the same
  // text, other ranks may not. All ranks call this, after weight_sync().await_all; each reads its weights once
  // (kernels/digest.h).
  std::string replica_differences(Ctx& ctx, int rank) const;

 private:
  struct Parts;
  std::string replica_differences(Ctx& ctx, Communicator& holders, int rank) const;
  Tensor whole(Ctx& ctx, size_t bucket, bool masters) const;

  std::unique_ptr<Parts> parts_;  // its members refer to each other
};

// A weight while ops read it. What the ctx's stack had to take for it, and what was pushed since, is released by the
// destructor.
class WeightUse {
 public:
  WeightUse(Ctx& ctx, State& state, int param)
      : stack_(state.is_coded(param) ? &ctx.stack : nullptr), mark_(ctx.stack.mark()), tensor_(state.get(ctx, param)) {}
  ~WeightUse() {
    if (stack_) stack_->release(mark_);
  }
  WeightUse(const WeightUse&) = delete;
  WeightUse& operator=(const WeightUse&) = delete;
  const Tensor& operator*() const { return tensor_; }

 private:
  Stack* stack_;  // null: nothing was pushed
  size_t mark_;
  Tensor tensor_;
};

}  // namespace mixtune
