#include "parallel/ranks.h"

#include <algorithm>

namespace mixtune {

Ranks make_ranks(std::unique_ptr<Communicator> world, const RankGrid& grid) {
  MT_CHECK(grid.world == world->size() && grid.rank == world->rank());
  Ranks ranks{.grid = grid};
  if (world->size() > 1) ranks.traffic = std::make_unique<Traffic>();
  ranks.world = ranks.traffic ? with_traffic(std::move(world), *ranks.traffic) : std::move(world);
  ranks.expert = ranks.world->split(ranks.grid.ep_color());
  ranks.expert_replica = ranks.world->split(ranks.grid.edp_color());
  return ranks;
}

namespace {

// An all-gather of host memory; returns when it is done.
void gather(Ctx& ctx, Communicator& ranks, const char* what, const Tensor& x) {
  const Stack::Frame frame(ctx.stack);
  const Tensor there = ctx.stack.push(what, x.shape, x.dtype);
  copy(ctx, x.row(ranks.rank()), there.row(ranks.rank()));
  ranks.all_gather(ctx, what, there);
  wait(ctx);  // with patience: a copy to pageable memory would wait for the others in the driver, without any end
  copy(ctx, there, x);
  wait(ctx);
}

// It moves nothing.
class PlannedCommunicator final : public Communicator {
 public:
  using Communicator::Communicator;

  void exchange(Ctx&, const char*, std::span<const Message>, std::span<const Message>) override {}
  void all_reduce(Ctx&, const char*, const Tensor&) override {}
  void reduce_scatter(Ctx&, const char*, const Tensor&) override {}
  void all_gather(Ctx&, const char*, const Tensor&) override {}
  std::unique_ptr<Communicator> split(int) override { MT_CHECK(false); }
};

std::unique_ptr<Communicator> plan_communicator(int rank, int size) {
  if (size == 1) return make_single_communicator();
  return std::make_unique<PlannedCommunicator>(rank, size);
}

}  // namespace

std::vector<std::string> gather_texts(Ctx& ctx, Communicator& ranks, const char* what, const std::string& text) {
  std::vector<int64_t> sizes(ranks.size());
  sizes[ranks.rank()] = static_cast<int64_t>(text.size());
  gather(ctx, ranks, what, host_tensor(sizes.data(), {ranks.size()}));
  const int64_t most = *std::ranges::max_element(sizes);
  std::vector<uint8_t> bytes(ranks.size() * most);
  std::ranges::copy(text, bytes.begin() + ranks.rank() * most);
  if (most > 0) gather(ctx, ranks, what, host_tensor(bytes.data(), {ranks.size(), most}));
  std::vector<std::string> texts;
  for (int rank = 0; rank < ranks.size(); ++rank)
    texts.emplace_back(bytes.begin() + rank * most, bytes.begin() + rank * most + sizes[rank]);
  return texts;
}

Ranks planned_ranks(const RankGrid& grid, size_t gpu_bytes) {
  return {.grid = grid,
          .device = {DeviceType::kMeta},
          .world = plan_communicator(grid.rank, grid.world),
          .expert = plan_communicator(grid.ep_rank(), grid.expert_parallel),
          .expert_replica = plan_communicator(grid.edp_rank(), grid.expert_data_parallel()),
          .gpu_bytes = grid.world > 1 ? gpu_bytes : 0};
}

Ranks single_rank() {
  return {.world = make_single_communicator(),
          .expert = make_single_communicator(),
          .expert_replica = make_single_communicator()};
}

}  // namespace mixtune
