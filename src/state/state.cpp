#include "state/state.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>

#include "base/log.h"
#include "kernels/cast.h"
#include "tensor/out_of_memory.h"

namespace mixtune {

namespace {

[[noreturn]] void throw_weights_do_not_fit(const StateTypes& types, Device device, size_t needed, size_t available) {
  throw UserError("out of memory",
                  fmt::format("the weights need {}, {} are available", format_bytes(needed), format_bytes(available)),
                  device.type == DeviceType::kCuda && types.weights == DType::kF32
                      ? "set precision: bf16, or use a smaller model or a GPU with more memory"
                      : "use a smaller model or a device with more memory");
}

constexpr const char *kSumOfGradients = "sum of gradients", *kUpdatedWeights = "updated weights";

constexpr int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

void check_slices(const ParamSpec& spec) {
  int64_t next = 0;
  for (const HfSlice& slice : spec.slices) {
    MT_CHECK(slice.offset == next && slice.begin >= 0 && slice.begin + slice.rows <= slice.shape[0]);
    next += slice.elements();
  }
  MT_CHECK(next == spec.shape.elements());
}

}  // namespace

Shape HfSlice::stored_shape() const {
  std::array<int64_t, Shape::kMaxRank> dims{};
  for (int dim = 0; dim < shape.rank(); ++dim) dims[dim] = shape[dim];
  dims[0] -= added;
  return {dims.data(), shape.rank()};
}

int64_t HfSlice::stored_elements() const {
  return rows == 0 ? 0 : elements() / rows * std::clamp<int64_t>(shape[0] - added - begin, 0, rows);
}

State::State(std::vector<ParamSpec> specs, Device device, const StateTypes& types, Purpose purpose,
             const Replicas& replicas)
    : specs_(std::move(specs)),
      types_(types),
      device_(device),
      purpose_(purpose),
      replicas_(replicas),
      written_(specs_.size(), false) {
  for (const ParamSpec& spec : specs_) check_slices(spec);
  make_buckets();
  reduced_.resize(buckets_.size());
  gathered_.resize(buckets_.size());
  ungathered_ = buckets_.size();
  const bool masters = types.masters && types.weights != DType::kF32, sharded = replicas.shard_optimizer;
  const size_t weights = storage_bytes(types.weights, false, false),
               gradients = storage_bytes(types.gradients, true, false),
               moments = storage_bytes(types.moments, true, sharded),
               master = masters ? storage_bytes(DType::kF32, true, sharded) : 0;
  if (const size_t needed = weights + gradients + 2 * moments + master, available = available_memory(device);
      needed > available) {
    if (!is_training()) throw_weights_do_not_fit(types, device, needed, available);
    throw OutOfMemory(
        MemoryOf::kState,
        fmt::format("weights ({}), masters ({}), gradients ({}) and moments ({}) need {}, {} are available",
                    format_bytes(weights), format_bytes(master), format_bytes(gradients), format_bytes(2 * moments),
                    format_bytes(needed), format_bytes(available)),
        ExitCode::kUserError);
  }
  weights_ = allocate("weights", types.weights, false, false);
  masters_ = masters ? allocate("master weights", DType::kF32, true, sharded) : Storage(buckets_.size());
  gradients_ = allocate("gradients", types.gradients, true, false);
  first_moments_ = allocate("first moments", types.moments, true, sharded);
  second_moments_ = allocate("second moments", types.moments, true, sharded);
}

void State::make_buckets() {
  const auto same = [](const ParamSpec& a, const ParamSpec& b) {
    return a.bucket == b.bucket && a.of_experts == b.of_experts && a.trainable == b.trainable;
  };
  for (int p = 0; p < size(); ++p) {
    const ParamSpec& spec = specs_[p];
    if (p == 0 || !same(specs_[p - 1], spec))
      buckets_.push_back({.first = p,
                          .trained = spec.trainable,
                          .holders = spec.of_experts ? replicas_.experts : replicas_.dense,
                          .elements = 0,
                          .saver = 0});
    Bucket& bucket = buckets_.back();
    bucket_of_.push_back(static_cast<int>(buckets_.size()) - 1);
    offset_.push_back(bucket.elements);
    bucket.last = p + 1;
    bucket.elements += round_up(spec.shape.elements(), kElementAlignment);
  }
  std::map<Communicator*, int> turns;
  for (Bucket& bucket : buckets_) {
    bucket.elements = round_up(bucket.elements, kElementAlignment * bucket.ranks());
    bucket.saver = turns[bucket.holders]++ % bucket.ranks();
  }
}

size_t State::storage_bytes(DType dtype, bool for_training, bool sharded) const {
  size_t bytes = 0;
  for (const Bucket& bucket : buckets_)
    if (holds(bucket, for_training)) bytes += (sharded ? bucket.piece() : bucket.elements) * dtype_size(dtype);
  return bytes;
}

State::Storage State::allocate(const char* name, DType dtype, bool for_training, bool sharded) {
  Arena& arena = add_arena(name, storage_bytes(dtype, for_training, sharded));
  Storage storage;
  for (const Bucket& bucket : buckets_) {
    const Shape shape = {sharded ? bucket.piece() : bucket.elements};
    storage.push_back(holds(bucket, for_training) ? arena.allocate(specs_[bucket.first].name, shape, dtype) : Tensor{});
  }
  return storage;
}

Tensor State::part(const Storage& storage, int param) const {
  const Tensor all = storage[bucket_of_[param]];
  const Shape& shape = specs_[param].shape;
  return all ? all.slice(offset_[param], shape.elements()).view(shape) : Tensor{};
}

Tensor State::owned_part(const Storage& storage, int param) const {
  if (!replicas_.shard_optimizer) return part(storage, param);
  const Bucket& bucket = buckets_[bucket_of_[param]];
  const Tensor kept = storage[bucket_of_[param]];
  const Piece piece = owned(param);
  return kept ? kept.slice(piece.count == 0 ? 0 : offset_[param] + piece.begin - bucket.piece_begin(), piece.count)
              : Tensor{};
}

State::Piece State::owned(int param) const {
  return replicas_.shard_optimizer ? counted(param) : Piece{0, specs_[param].shape.elements()};
}

State::Piece State::counted(int param) const {
  const Bucket& bucket = buckets_[bucket_of_[param]];
  const int64_t elements = specs_[param].shape.elements(), piece_begin = bucket.piece_begin() - offset_[param];
  const int64_t begin = std::clamp<int64_t>(piece_begin, 0, elements),
                end = std::clamp<int64_t>(piece_begin + bucket.piece(), 0, elements);
  return {begin, end - begin};
}

Arena& State::add_arena(const char* name, size_t bytes) {
  return *arenas_.emplace_back(std::make_unique<Arena>(name, device_, bytes));
}

int64_t State::elements() const {
  int64_t n = 0;
  for (const ParamSpec& spec : specs_) n += spec.shape.elements();
  return n;
}

int64_t State::all_elements() const {
  int64_t n = elements();
  for (const ParamSpec& spec : specs_)
    for (const HfSlice& slice : spec.elsewhere) n += slice.elements();
  return n;
}

size_t State::bytes() const {
  size_t sum = 0;
  for (const auto& arena : arenas_) sum += arena->used();
  return sum;
}

// Weights live on the device all the time: nothing to fetch but what other ranks updated, nothing to give back.
Tensor State::get(Ctx& ctx, int param) {
  await(ctx, bucket_of_[param]);
  return weight(param);
}
void State::release(int) {}

State::Gradient State::gradient(int param) {
  return {part(gradients_, param), written_[param]};
}

void State::notify(int param) {
  MT_CHECK(part(gradients_, param));
  written_[param] = true;
}

void State::begin_step() {
  written_.assign(written_.size(), false);
  last_micro_batch_ = false;
  first_reduced_ = buckets_.size();
}

void State::publish(Ctx& ctx, int param) {
  const Tensor masters = master(param);
  if (!masters || masters.elements() == 0) return;
  const Piece piece = owned(param);
  cast(ctx, masters.view({piece.count}),
       weight(param).view({specs_[param].shape.elements()}).slice(piece.begin, piece.count));
}

Tensor State::finished_gradient(Ctx& ctx, int param) {
  const Tensor gradient = part(gradients_, param);
  if (gradient && !written_[param]) {
    zero(ctx, gradient);
    written_[param] = true;
  }
  return gradient;
}

bool State::saves(int param) const {
  const Bucket& bucket = buckets_[bucket_of_[param]];
  return bucket.holders == nullptr || bucket.saver == bucket.holders->rank();
}

// Backward writes gradients in the order of parameters, from the last to the first.
void State::complete_from(Ctx& ctx, int param) {
  if (!last_micro_batch_) return;
  while (first_reduced_ > 0 && buckets_[first_reduced_ - 1].first >= param) reduce(ctx, --first_reduced_);
}

void State::reduce(Ctx& ctx, size_t b) {
  const Bucket& bucket = buckets_[b];
  for (int p = bucket.first; p < bucket.last; ++p) finished_gradient(ctx, p);
  if (!gradients_[b] || bucket.ranks() == 1) return;
  const InLane lane(ctx);
  if (replicas_.shard_optimizer)
    bucket.holders->reduce_scatter(ctx, kSumOfGradients, gradients_[b]);
  else
    bucket.holders->all_reduce(ctx, kSumOfGradients, gradients_[b]);
  reduced_[b] = mark_lane(ctx);
}

void State::reduce_gradients(Ctx& ctx) {
  last_micro_batch_ = true;
  complete_from(ctx, 0);
  for (size_t b = 0; b < buckets_.size(); ++b)
    if (gradients_[b] && buckets_[b].ranks() > 1) buckets_[b].holders->wait(ctx, kSumOfGradients, reduced_[b]);
}

void State::gather_before(Ctx& ctx, size_t end) {
  for (; ungathered_ < std::min(end, buckets_.size()); ++ungathered_) {
    const Bucket& bucket = buckets_[ungathered_];
    if (!replicas_.shard_optimizer || !bucket.trained || bucket.ranks() == 1) continue;
    const InLane lane(ctx);
    bucket.holders->all_gather(ctx, kUpdatedWeights, weights_[ungathered_]);
    gathered_[ungathered_] = mark_lane(ctx);
  }
}

void State::await(Ctx& ctx, size_t b) {
  constexpr size_t kAhead = 2;  // buckets of a layer
  gather_before(ctx, b + 1 + kAhead);
  if (gathered_[b].place > 0) buckets_[b].holders->wait(ctx, kUpdatedWeights, gathered_[b]);
  gathered_[b] = {};
}

void State::await_weights(Ctx& ctx) {
  for (size_t b = 0; b < buckets_.size(); ++b) await(ctx, b);
}

std::vector<Tensor> State::to_save(Ctx& ctx, bool masters) const {
  std::vector<Tensor> tensors(size());
  for (size_t b = 0; b < buckets_.size(); ++b) {
    const Bucket& bucket = buckets_[b];
    const size_t mark = ctx.stack.mark();
    Tensor values = masters && masters_[b] ? masters_[b] : weights_[b];
    if (values.elements() < bucket.elements) {
      values = ctx.stack.push("master weights to save", {bucket.elements}, masters_[b].dtype);
      copy(ctx, masters_[b], values.slice(bucket.piece_begin(), bucket.piece()));
      bucket.holders->all_gather(ctx, "master weights", values);
    }
    if (!saves(bucket.first)) {
      ctx.stack.release(mark);
      continue;
    }
    for (int p = bucket.first; p < bucket.last; ++p)
      tensors[p] = values.slice(offset_[p], specs_[p].shape.elements()).view(specs_[p].shape);
  }
  return tensors;
}

size_t State::stack_bytes_to_save() const {
  size_t kept = 0, most_passing = 0;
  for (size_t b = 0; b < buckets_.size(); ++b) {
    if (!masters_[b] || masters_[b].elements() == buckets_[b].elements) continue;
    const size_t bytes = align_up(buckets_[b].elements * dtype_size(masters_[b].dtype));
    saves(buckets_[b].first) ? kept += bytes : most_passing = std::max(most_passing, bytes);
  }
  return kept + most_passing;
}

void State::share_weights(Ctx& ctx) {
  const bool masters_are_whole = !replicas_.shard_optimizer;
  for (size_t b = 0; b < buckets_.size(); ++b) {
    if (buckets_[b].ranks() == 1) continue;
    buckets_[b].holders->all_gather(ctx, "loaded weights", weights_[b]);
    if (masters_[b] && masters_are_whole) buckets_[b].holders->all_gather(ctx, "loaded weights", masters_[b]);
  }
}

}  // namespace mixtune
