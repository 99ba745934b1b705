#include "train/parallel_report.h"

#include <iterator>

#include "metrics/fields.h"

namespace mixtune {

namespace {

constexpr auto kNumbers = static_cast<int64_t>(std::size(kRankFields));

RankRecord record_of(int64_t tokens, Instance& instance) {
  Traffic& traffic = *instance.ranks().traffic;
  const Traffic::Sum exchange =
      traffic.of({"tokens to experts", "routing weights", "row numbers", "expert outputs",
                  "gradients of expert outputs", "gradients of tokens", "gradients of routing weights"});
  return {.tokens = tokens,
          .exchange_bytes = exchange.bytes,
          .exchange_milliseconds = exchange.seconds * 1e3,
          .exchange_exposed_milliseconds = exchange.exposed_seconds * 1e3,
          .gradient_sum_milliseconds = traffic.of({GradientSync::kSums}).exposed_seconds * 1e3,
          .weight_gather_milliseconds = traffic.of({WeightSync::kUpdates}).exposed_seconds * 1e3,
          .collective_milliseconds = traffic.all().exposed_seconds * 1e3,
          .memory_gib = memory_gib(instance.options().device)};
}

}  // namespace

ParallelReport::ParallelReport(Instance& instance)
    : instance_(instance),
      arena_("numbers of this rank", Device{}, align_up(kNumbers * sizeof(double)), instance.host_memory()),
      own_(arena_.allocate("numbers of this rank", {kNumbers}, DType::kF64)),
      all_(instance.ctx(), "numbers of all ranks", instance.ranks().all->size() * kNumbers) {
  record_.ranks.resize(instance.ranks().all->size());
}

void ParallelReport::begin() {
  tokens_ = 0;
  instance_.ranks().traffic->start();
}

const ParallelRecord& ParallelReport::read() {
  Ctx& ctx = instance_.ctx();
  Communicator& ranks = *instance_.ranks().all;
  instance_.ranks().traffic->stop();
  const RankRecord own = record_of(tokens_, instance_);
  for (int64_t i = 0; i < kNumbers; ++i) own_.as<double>()[i] = kRankFields[i].get(own);
  copy(ctx, own_, all_.slice(ranks.rank() * kNumbers, kNumbers));
  ranks.all_gather(ctx, "numbers of a step", all_.slice(0, ranks.size() * kNumbers));
  const double* all = all_.read(ctx);
  for (RankRecord& rank : record_.ranks)
    for (const RankField& field : kRankFields) field.set(rank, *all++);
  return record_;
}

}  // namespace mixtune
