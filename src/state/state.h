// State: the one owner of weights, gradients and optimizer moments.
//
// A parameter is the tensor a kernel reads (say, gate_up of all experts of a layer). It is put together from slices of
// Hugging Face tensors, the only names used on disk.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "parallel/communicator.h"
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
  int64_t added = 0;  // the last rows of the tensor, which the checkpoint that it is loaded from lacks

  int64_t elements() const { return shape[0] == 0 ? 0 : shape.elements() / shape[0] * rows; }
  // Of the tensor in that checkpoint; and how many of elements(), the first ones, it has.
  Shape stored_shape() const;
  int64_t stored_elements() const;
};

struct ParamSpec {
  std::string name;  // for messages and reports; never on disk
  Shape shape;
  std::vector<HfSlice> slices;          // in the order of their offsets, without holes
  std::vector<HfSlice> elsewhere = {};  // what other ranks have of this parameter; their offsets mean nothing
  bool trainable = true;
  bool of_experts = false;  // held by the ranks that hold these experts; otherwise by all
  int bucket = 0;           // neighbours of one number lie together, and are reduced and gathered together
};

// Which ranks hold the same parameters, and whether each keeps all of the optimizer's state.
struct Replicas {
  Communicator* dense = nullptr;    // of the dense parameters; none: this rank alone
  Communicator* experts = nullptr;  // of the experts'
  bool shard_optimizer = false;     // ZeRO stage 1: a rank keeps moments and masters of its piece, and updates that
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

  // Zeroed. Where the device has not enough memory for it, throws OutOfMemory to train, UserError otherwise. The
  // communicators outlive the state.
  State(std::vector<ParamSpec> specs, Device device, const StateTypes& types, Purpose purpose,
        const Replicas& replicas = {});
  State(std::vector<ParamSpec> specs, Device device, DType dtype, Purpose purpose)
      : State(std::move(specs), device, StateTypes::all(dtype), purpose) {}

  int size() const { return static_cast<int>(specs_.size()); }
  const ParamSpec& spec(int param) const { return specs_[param]; }
  DType dtype() const { return types_.weights; }
  const StateTypes& types() const { return types_; }
  Device device() const { return device_; }
  bool is_training() const { return purpose_ == Purpose::kTraining; }
  int64_t elements() const;      // of the parameters here
  int64_t all_elements() const;  // of the whole model
  size_t bytes() const;          // of all that it holds

  // The weight, ready to be read by the ctx's next op; valid until release.
  Tensor get(Ctx& ctx, int param);
  void release(int param);
  // The weight, to be written by the optimizer step; and the fp32 master of what this rank owns of it, empty where
  // there is none.
  Tensor weight(int param) const { return part(weights_, param); }
  Tensor master(int param) const { return owned_part(masters_, param); }
  // What load and initialise write: the master where there is one, else the weight. After a write, publish brings the
  // weight in line.
  Tensor primary(int param) const { return master(param) ? master(param) : weight(param); }
  void publish(Ctx& ctx, int param);

  struct Gradient {
    Tensor tensor;    // empty where the parameter is not trained
    bool accumulate;  // false: write over what is there (the first of a step); true: add to it
  };
  // Where this micro-batch's gradient of `param` goes. The writer calls notify when it is written.
  Gradient gradient(int param);
  void notify(int param);
  // Forgets the gradients: the next ones are written, not added.
  void begin_step();
  // Of the gradients that come from now on, none is added to any more.
  void begin_last_micro_batch() { last_micro_batch_ = true; }
  // This micro-batch has no further gradient for parameters from `param` on: those of its last one begin to be summed
  // over their holders, beside what the ctx does. All ranks call this, in the same order; nothing else does.
  void complete_from(Ctx& ctx, int param);
  // The gradient of this rank's micro-batches: zero where none of them wrote one.
  Tensor finished_gradient(Ctx& ctx, int param);
  // After the last micro-batch: the gradients of all holders of each parameter are summed. All ranks call this, once a
  // step; with shard_optimizer the sums are then there for the owned pieces alone.
  void reduce_gradients(Ctx& ctx);
  // After the optimizer step each rank has the owned pieces of all weights. The others come beside what the ctx does, a
  // layer ahead of the one that get gives weights of, which it waits for. All ranks call get in the same order.
  void gather_weights() { ungathered_ = 0; }
  // For who reads weights by weight(), primary() or to_save(): they are all there.
  void await_weights(Ctx& ctx);
  // Each holder of a parameter has what it counts of primary(); now it has all. All ranks call this.
  void share_weights(Ctx& ctx);

  // Elements [begin, begin + count) of a parameter, row by row; perhaps none.
  struct Piece {
    int64_t begin, count;
  };
  Piece owned(int param) const;    // of which this rank keeps moments and masters, and which it updates
  Piece counted(int param) const;  // which this rank adds to sums over all ranks, so that each element counts once

  // Of the holders of a parameter, one writes it to a checkpoint: whether it is this rank.
  bool saves(int param) const;
  // Those that it writes, whole: the weights, or the masters where these are wanted and there are some, pushed on the
  // stack where they are in pieces; empty for the others. All ranks call this, after await_weights.
  std::vector<Tensor> to_save(Ctx& ctx, bool masters) const;
  size_t stack_bytes_to_save() const;  // that masters in pieces take there

  // Whether all holders of a weight, or of a master that each has whole, have the same bits: "", or which ranks do not
  // have those of which other one, and of what. `rank` is this one's, of all. The holders of a parameter get the same
  // text, other ranks may not. All ranks call this, after await_weights; each reads its weights once
  // (kernels/digest.h).
  std::string replica_differences(Ctx& ctx, int rank) const;

  // Of the owned piece.
  Tensor first_moment(int param) const { return owned_part(first_moments_, param); }
  Tensor second_moment(int param) const { return owned_part(second_moments_, param); }

  const std::vector<std::unique_ptr<Arena>>& arenas() const { return arenas_; }

 private:
  // Parameters that lie one behind the other, each at a multiple of kElementAlignment, and padding at the end.
  struct Bucket {
    int first, last;  // parameters [first, last)
    bool trained;
    Communicator* holders;  // none: this rank alone
    int64_t elements;       // a multiple of kElementAlignment times the holders
    int saver;              // which of the holders writes it to a checkpoint: they take turns

    int ranks() const { return holders ? holders->size() : 1; }
    int64_t piece() const { return elements / ranks(); }
    int64_t piece_begin() const { return holders ? holders->rank() * piece() : 0; }
  };
  static constexpr int64_t kElementAlignment = kAlignment;  // so that a tensor is aligned in every dtype

  void make_buckets();
  Arena& add_arena(const char* name, size_t bytes);
  // One tensor for each bucket; empty for those without.
  using Storage = std::vector<Tensor>;
  Storage allocate(const char* name, DType dtype, bool for_training, bool sharded);
  size_t storage_bytes(DType dtype, bool for_training, bool sharded) const;
  bool holds(const Bucket& bucket, bool for_training) const {
    return !for_training || (bucket.trained && is_training());
  }
  void reduce(Ctx& ctx, size_t bucket);
  void await(Ctx& ctx, size_t bucket);
  void gather_before(Ctx& ctx, size_t bucket);
  std::string replica_differences(Ctx& ctx, Communicator& holders, int rank) const;
  Tensor part(const Storage& storage, int param) const;
  Tensor owned_part(const Storage& storage, int param) const;

  std::vector<ParamSpec> specs_;
  StateTypes types_;
  Device device_;
  Purpose purpose_;
  Replicas replicas_;
  std::vector<Bucket> buckets_;
  std::vector<int> bucket_of_;   // each parameter
  std::vector<int64_t> offset_;  // of each parameter, in elements of its bucket
  std::vector<std::unique_ptr<Arena>> arenas_;
  Storage weights_, masters_, gradients_, first_moments_, second_moments_;
  std::vector<bool> written_;  // since begin_step
  bool last_micro_batch_ = false;
  size_t first_reduced_ = 0;        // of the buckets: the first whose sums are there or on their way
  std::vector<LaneMark> reduced_;   // each bucket's, once they are
  size_t ungathered_;               // the first bucket whose weights are not there, nor on their way
  std::vector<LaneMark> gathered_;  // each bucket's weights are there after
};

// A weight while ops read it: got here, released at the end of the scope.
class WeightUse {
 public:
  WeightUse(Ctx& ctx, State& state, int param) : state_(state), param_(param), tensor_(state.get(ctx, param)) {}
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
