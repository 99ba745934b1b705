#include "train/parallel_report.h"

#include <algorithm>
#include <iterator>

#include "metrics/fields.h"
#include "train/expert_load.h"

namespace mixtune {

namespace {

constexpr auto kNumbers = static_cast<int64_t>(std::size(kRankFields));

RankRecord record_of(int64_t tokens, Traffic& traffic) {
  const Traffic::Sum exchange =
      traffic.of({"tokens to experts", "routing weights", "expert outputs", "gradients of expert outputs",
                  "gradients of tokens", "gradients of routing weights"});
  return {.tokens = tokens,
          .exchange_bytes = exchange.bytes,
          .exchange_milliseconds = exchange.seconds * 1e3,
          .exchange_exposed_milliseconds = exchange.exposed_seconds * 1e3,
          .gradient_sum_milliseconds = traffic.of({GradientSync::kSums}).exposed_seconds * 1e3,
          .weight_gather_milliseconds = traffic.of({WeightSync::kUpdates}).exposed_seconds * 1e3,
          .collective_milliseconds = traffic.all().exposed_seconds * 1e3};
}

}  // namespace

ParallelReport::ParallelReport(Instance& instance)
    : instance_(instance),
      layers_(instance.model().config().num_hidden_layers),
      experts_(instance.model().config().num_local_experts),
      all_(instance.ctx(), "numbers of all ranks", instance.ranks().all->size() * kNumbers),
      routed_(experts_) {
  record_.ranks.resize(instance.ranks().all->size());
  record_.expert_tokens.resize(experts_);
}

void ParallelReport::begin(int64_t micro_batches) {
  if (!router_stats_ || router_stats_.rows() < micro_batches) {
    const Shape stats = {micro_batches, layers_, 2, experts_}, own = {kNumbers};
    arena_ =
        std::make_unique<Arena>("report of a step", Device{},
                                align_up(stats.elements() * sizeof(double)) + align_up(own.elements() * sizeof(double)),
                                instance_.host_memory());
    router_stats_ = arena_->allocate("router statistics", stats, DType::kF64);
    own_ = arena_->allocate("numbers of this rank", own, DType::kF64);
  }
  tokens_ = added_ = 0;
  instance_.ranks().traffic->start();
}

Tensor ParallelReport::add(const Batch& batch) {
  tokens_ += batch.live_tokens;
  return router_stats_.row(added_++);
}

const ParallelRecord& ParallelReport::read() {
  Ctx& ctx = instance_.ctx();
  Communicator& ranks = *instance_.ranks().all;
  instance_.ranks().traffic->stop();
  const RankRecord own = record_of(tokens_, *instance_.ranks().traffic);
  for (int64_t i = 0; i < kNumbers; ++i) own_.as<double>()[i] = kRankFields[i].get(own);
  copy(ctx, own_, all_.slice(ranks.rank() * kNumbers, kNumbers));
  ranks.all_gather(ctx, "numbers of a step", all_.slice(0, ranks.size() * kNumbers));
  const double* all = all_.read(ctx);
  for (RankRecord& rank : record_.ranks)
    for (const RankField& field : kRankFields) field.set(rank, *all++);
  count_routed();
  return record_;
}

void ParallelReport::count_routed() {
  record_.expert_imbalance = 0;
  std::ranges::fill(record_.expert_tokens, 0);
  for (int64_t layer = 0; layer < layers_; ++layer) {
    std::ranges::fill(routed_, 0);
    for (int64_t i = 0; i < added_; ++i) {
      const double* counts = router_stats_.row(i).row(layer).row(0).as<double>();
      for (int64_t e = 0; e < experts_; ++e) routed_[e] += counts[e];
    }
    record_.expert_imbalance = std::max(record_.expert_imbalance, expert_imbalance<double>(routed_));
    for (int64_t e = 0; e < experts_; ++e) record_.expert_tokens[e] += static_cast<int64_t>(routed_[e]);
  }
}

}  // namespace mixtune
