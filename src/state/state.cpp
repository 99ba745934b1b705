#include "state/state.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "kernels/cast.h"
#include "state/state_parts.h"
#include "tensor/out_of_memory.h"

namespace mixtune {

namespace {

using Bucket = ParamLayout::Bucket;

[[noreturn]] void throw_weights_do_not_fit(const StateTypes& types, Device device, size_t needed, size_t available) {
  throw UserError("out of memory",
                  fmt::format("the weights need {}, {} are available", format_bytes(needed), format_bytes(available)),
                  device.type == DeviceType::kCuda && types.weights == DType::kF32
                      ? "set precision: bf16, or use a smaller model or a GPU with more memory"
                      : "use a smaller model or a device with more memory");
}

ParamLayout::Holders holders_of(const Communicator& communicator) {
  return {communicator.rank(), communicator.size()};
}

// Every kind that a state of these types may have.
struct Kinds {
  Kinds(const StateTypes& types, bool sharded)
      : masters{"master weights", DType::kF32, true, sharded, true},
        gradients{"gradients", types.gradients},
        first_moments{"first moments", types.moments, true, sharded},
        second_moments{"second moments", types.moments, true, sharded} {}

  StorageKind weights{"weights", {}, false}, masters, gradients, first_moments, second_moments;
};

void check_memory(const ParamLayout& layout, const Kinds& kinds, const StateTypes& types, Device device,
                  bool training) {
  const auto bytes = [&](const StorageKind& kind, bool held) {
    return held ? Storage::bytes(layout, kind) : 0;
  };
  const size_t weights = bytes(kinds.weights, true) + CodedWeights::bytes(layout),
               gradients = bytes(kinds.gradients, training),
               moments = bytes(kinds.first_moments, training) + bytes(kinds.second_moments, training),
               masters = bytes(kinds.masters, training && types.masters);
  const size_t needed = weights + gradients + moments + masters, available = available_memory(device);
  if (needed <= available) return;
  if (!training) throw_weights_do_not_fit(types, device, needed, available);
  throw OutOfMemory(MemoryOf::kState,
                    fmt::format("weights ({}), masters ({}), gradients ({}) and moments ({}) need {}, {} are available",
                                format_bytes(weights), format_bytes(masters), format_bytes(gradients),
                                format_bytes(moments), format_bytes(needed), format_bytes(available)),
                    ExitCode::kUserError);
}

}  // namespace

State::Parts::Parts(std::vector<ParamSpec> specs, Device where, const StateTypes& held, Purpose what_for,
                    const Replicas& replicas)
    : types(held),
      device(where),
      purpose(what_for),
      holders(replicas),
      layout(std::move(specs), held.weights,
             {holders_of(holders.dense()), holders_of(holders.experts()), replicas.shard_optimizer}),
      weights(layout),
      masters(layout),
      gradients(layout),
      first_moments(layout),
      second_moments(layout) {
  const Kinds kinds(types, layout.sharded());
  const bool training = purpose == Purpose::kTraining;
  check_memory(layout, kinds, types, device, training);
  const auto allocate = [&](const StorageKind& kind) {
    Arena& arena = *arenas.emplace_back(std::make_unique<Arena>(kind.name, device, Storage::bytes(layout, kind)));
    return Storage(layout, kind, arena);
  };
  weights = allocate(kinds.weights);
  if (const size_t bytes = CodedWeights::bytes(layout); bytes > 0)
    coded = CodedWeights(layout, *arenas.emplace_back(std::make_unique<Arena>("weights held as codes", device, bytes)));
  if (!training) return;
  if (types.masters) masters = allocate(kinds.masters);
  gradients = allocate(kinds.gradients);
  first_moments = allocate(kinds.first_moments);
  second_moments = allocate(kinds.second_moments);
}

State::State(std::vector<ParamSpec> specs, Device device, const StateTypes& types, Purpose purpose,
             const Replicas& replicas)
    : parts_(std::make_unique<Parts>(std::move(specs), device, types, purpose, replicas)) {}
State::~State() = default;
State::State(State&&) noexcept = default;

const ParamLayout& State::layout() const {
  return parts_->layout;
}
const StateTypes& State::types() const {
  return parts_->types;
}
Device State::device() const {
  return parts_->device;
}
bool State::is_training() const {
  return parts_->purpose == Purpose::kTraining;
}
const std::vector<std::unique_ptr<Arena>>& State::arenas() const {
  return parts_->arenas;
}
GradientSync& State::gradients() {
  return parts_->gradient_sync;
}
WeightSync& State::weight_sync() {
  return parts_->weight_sync;
}
Tensor State::weight(int param) const {
  return parts_->weights.part(param);
}
Tensor State::master(int param) const {
  return parts_->masters.owned_part(param);
}
Tensor State::first_moment(int param) const {
  return parts_->first_moments.owned_part(param);
}
Tensor State::second_moment(int param) const {
  return parts_->second_moments.owned_part(param);
}

size_t State::bytes() const {
  size_t sum = 0;
  for (const auto& arena : arenas()) sum += arena->used();
  return sum;
}

// Weights live on the device all the time: nothing to fetch but what other ranks updated, nothing to give back.
Tensor State::get(Ctx& ctx, int param) {
  parts_->weight_sync.await(ctx, layout().bucket_of(param));
  if (!is_coded(param)) return weight(param);
  const Tensor values = ctx.stack.push("weight from codes", spec(param).shape, types().weights);
  parts_->coded.decode(ctx, param, values);
  return values;
}

const Nf4Tensor& State::nf4(Ctx& ctx, int param, size_t block) {
  weights_changed();
  return parts_->coded.nf4(ctx, param, block);
}

void State::encode(Ctx& ctx, int param, size_t block, const Tensor& values) {
  weights_changed();
  parts_->coded.encode(ctx, param, block, values);
}

int64_t State::version(int param) const {
  return parts_->changes + (spec(param).trainable ? parts_->trainings : 0);
}
void State::weights_changed() {
  ++parts_->changes;
}
void State::weights_trained() {
  ++parts_->trainings;
}

void State::publish(Ctx& ctx, int param) {
  weights_changed();
  const Tensor masters = master(param);
  if (!masters || masters.elements() == 0) return;
  const ParamLayout::Piece piece = layout().owned(param);
  cast(ctx, masters.view({piece.count}),
       weight(param).view({spec(param).shape.elements()}).slice(piece.begin, piece.count));
}

void State::share_weights(Ctx& ctx) {
  weights_changed();
  const bool masters_are_whole = !layout().sharded();
  for (size_t b = 0; b < layout().buckets().size(); ++b) {
    const Bucket& bucket = layout().buckets()[b];
    if (bucket.holders.size == 1 || bucket.is_coded) continue;
    Communicator& holders = parts_->holders.of(bucket);
    holders.all_gather(ctx, "loaded weights", parts_->weights.bucket(b));
    const Tensor& masters = parts_->masters.bucket(b);
    if (masters && masters_are_whole) holders.all_gather(ctx, "loaded weights", masters);
  }
}

void State::share_moments(Ctx& ctx) {
  if (layout().sharded()) return;
  for (size_t b = 0; b < layout().buckets().size(); ++b) {
    const Bucket& bucket = layout().buckets()[b];
    if (bucket.holders.size == 1) continue;
    for (const Storage* moments : {&parts_->first_moments, &parts_->second_moments})
      if (const Tensor& whole = moments->bucket(b)) parts_->holders.of(bucket).all_gather(ctx, "loaded moments", whole);
  }
}

}  // namespace mixtune
