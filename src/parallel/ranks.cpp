#include "parallel/ranks.h"

#include <algorithm>

namespace mixtune {

namespace {

// Gathers host memory; returns when that is done.
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

std::shared_ptr<Communicator> planned(const RankGrid& grid, Axes axes) {
  if (grid.size(axes) == 1) return make_single_communicator();
  return std::make_shared<PlannedCommunicator>(grid.position(axes), grid.size(axes));
}

// group(axes) makes the group along these axes.
void add_groups(Ranks& ranks, const std::function<std::shared_ptr<Communicator>(Axes)>& group) {
  ranks.data = ranks.grid.size(kDataAxes) == ranks.grid.world ? ranks.all : group(kDataAxes);
  ranks.dense = ranks.data;
  ranks.expert_parallel = group(Axis::kEp);
  ranks.experts = group(Axis::kEdp);
}

}  // namespace

Ranks make_ranks(std::unique_ptr<Communicator> all, const RankGrid& grid) {
  MT_CHECK(grid.world == all->size() && grid.rank == all->rank());
  Ranks ranks{.grid = grid};
  if (all->size() > 1) ranks.traffic = std::make_unique<Traffic>();
  ranks.all = ranks.traffic ? with_traffic(std::move(all), *ranks.traffic) : std::move(all);
  add_groups(ranks, [&](Axes axes) { return ranks.all->split(grid.color(axes)); });
  return ranks;
}

void barrier(Ctx& ctx, Communicator& ranks, const char* what) {
  std::vector<int64_t> here(ranks.size());
  gather(ctx, ranks, what, host_tensor(here.data(), {ranks.size()}));
}

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

const Ranks& single_rank() {
  static const Ranks alone = make_ranks(make_single_communicator(), {});
  return alone;
}

Ranks planned_ranks(const RankGrid& grid, size_t gpu_bytes) {
  Ranks ranks{.grid = grid,
              .device = Device{DeviceType::kMeta},
              .all = planned(grid, kAllAxes),
              .gpu_bytes = grid.world > 1 ? gpu_bytes : 0};
  add_groups(ranks, [&](Axes axes) { return planned(grid, axes); });
  return ranks;
}

}  // namespace mixtune
