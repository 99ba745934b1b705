// ParamLayout: what a rank holds of a model's parameters, and where. A value: no memory, no device, no communication.
//
// A parameter is the tensor a kernel reads (say, gate_up of all experts of a layer). It is put together from blocks of
// Hugging Face tensors, the only names used on disk.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "tensor/box.h"
#include "tensor/memory.h"

namespace mixtune {

// The box `box` of the Hugging Face tensor `name`. Its elements stand in the parameter one behind the other, in the
// order of their indices, from element `offset` on.
struct HfBlock {
  std::string name;
  Box box;
  int64_t offset = 0;
  int64_t added = 0;  // the tensor's last rows, which the checkpoint to load from lacks

  const Shape& shape() const { return box.whole(); }
  int64_t elements() const { return box.elements(); }
  // The tensor's shape in that checkpoint; and how many of elements(), the first ones, it has.
  Shape stored_shape() const;
  int64_t stored_elements() const;
};

// When backward is done with a parameter's gradient. Backward goes from the last layer of a stage to its first, and in
// each layer from the experts to attention. A stage is the stretch of layers that a pipeline's rank runs.
struct Place {
  enum Part : uint8_t { kDense, kExperts };
  int stage = 0;
  int64_t layer = 0;  // -1: the embedding, which ends a stage's backward; after the last: the head
  Part part = kDense;

  auto operator<=>(const Place&) const = default;
};

struct ParamSpec {
  // Where its values come from when a run starts: the checkpoint, or the code that makes it (of an adapter, say).
  enum class Origin : uint8_t { kStored, kInitialised };

  std::string name;  // for messages and reports; never on disk
  Shape shape;
  std::vector<HfBlock> blocks;          // in the order of their offsets, without holes
  std::vector<HfBlock> elsewhere = {};  // what other ranks have of this parameter; their offsets mean nothing
  bool trainable = true;
  WeightGroup group = WeightGroup::kAttention;  // whose learning rate it has
  double lr_ratio = 1;                          // or a multiple of that
  bool of_experts = false;                      // held by the ranks that hold these experts; otherwise by all
  Place place = {};                             // neighbours of one place lie together: a bucket
  std::optional<DType> dtype = {};              // of the weight; none: that of the state
  Origin origin = Origin::kStored;
  BasePrecision held_in = BasePrecision::kAuto;  // codes (coded_weights.h), which are not trained; kAuto: values

  bool is_coded() const { return held_in != BasePrecision::kAuto; }
  // Whether it is what a pair began as (lora_init: pissa), which no op reads: alone of what is initialised it has a
  // dtype.
  bool is_initial_pair() const { return origin == Origin::kInitialised && dtype.has_value(); }
};

class ParamLayout {
 public:
  // This rank among those that hold the same parameters.
  struct Holders {
    int rank = 0, size = 1;
  };
  struct Copies {
    Holders dense, experts;
    bool sharded = false;  // ZeRO stage 1: a rank keeps moments and masters of its piece, and updates that
  };
  ParamLayout(std::vector<ParamSpec> specs, DType dtype, const Copies& copies);

  // A bucket: parameters one behind the other, each at a multiple of kElementAlignment, and padding at the end. It is
  // reduced, gathered, updated and saved as a whole. Each holder counts, reads and (sharded) updates its piece of it.
  struct Bucket {
    int first, last;  // parameters [first, last)
    bool trained, of_experts, is_coded;
    ParamSpec::Origin origin;
    DType dtype;  // of the weights
    Place place;
    Holders holders;
    int64_t elements = 0;  // a multiple of kElementAlignment times the holders
    // Its number among the buckets of the same holders, who save them by turns. Those of one place that are initialised
    // have one turn: they may have parts of the same tensors.
    int turn = 0;

    int64_t piece() const { return elements / holders.size; }
    int64_t piece_begin() const { return holders.rank * piece(); }
    bool saved_here() const { return turn % holders.size == holders.rank; }
  };
  static constexpr int64_t kElementAlignment = kAlignment;  // so that a tensor is aligned in every dtype

  int size() const { return static_cast<int>(specs_.size()); }
  const ParamSpec& spec(int param) const { return specs_[param]; }
  const std::vector<Bucket>& buckets() const { return buckets_; }
  int bucket_of(int param) const { return bucket_of_[param]; }
  int64_t offset(int param) const { return offset_[param]; }  // in elements of its bucket
  bool sharded() const { return copies_.sharded; }

  int64_t elements() const;      // of the parameters here
  int64_t all_elements() const;  // of the whole model

  // Elements [begin, begin + count) of a parameter, row by row; perhaps none.
  struct Piece {
    int64_t begin, count;
  };
  Piece owned(int param) const;    // this rank keeps its moments and masters, and updates it
  Piece counted(int param) const;  // this rank adds it to sums over all ranks: each element counts once

 private:
  void add(int param, DType dtype);

  std::vector<ParamSpec> specs_;
  Copies copies_;
  std::vector<Bucket> buckets_;
  std::vector<int> bucket_of_;
  std::vector<int64_t> offset_;
};

}  // namespace mixtune
