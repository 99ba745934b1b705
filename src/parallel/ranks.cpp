#include "parallel/ranks.h"

#include <algorithm>

namespace mixtune {

Ranks make_ranks(std::unique_ptr<Communicator> world, int expert_parallel, int64_t experts, const std::string& where) {
  Ranks ranks{.grid = make_rank_grid(world->size(), world->rank(), expert_parallel, experts, where)};
  if (world->size() > 1) ranks.traffic = std::make_unique<Traffic>();
  ranks.world = ranks.traffic ? with_traffic(std::move(world), *ranks.traffic) : std::move(world);
  ranks.expert = ranks.world->split(ranks.grid.ep_color());
  ranks.expert_replica = ranks.world->split(ranks.grid.edp_color());
  return ranks;
}

std::vector<std::string> gather_texts(Ctx& ctx, Communicator& ranks, const char* what, const std::string& text) {
  std::vector<int64_t> sizes(ranks.size());
  sizes[ranks.rank()] = static_cast<int64_t>(text.size());
  ranks.all_gather(ctx, what, host_tensor(sizes.data(), {ranks.size()}));
  const int64_t most = *std::ranges::max_element(sizes);
  std::vector<uint8_t> bytes(ranks.size() * most);
  std::ranges::copy(text, bytes.begin() + ranks.rank() * most);
  if (most > 0) ranks.all_gather(ctx, what, host_tensor(bytes.data(), {ranks.size(), most}));
  std::vector<std::string> texts;
  for (int rank = 0; rank < ranks.size(); ++rank)
    texts.emplace_back(bytes.begin() + rank * most, bytes.begin() + rank * most + sizes[rank]);
  return texts;
}

Ranks single_rank() {
  return {.world = make_single_communicator(),
          .expert = make_single_communicator(),
          .expert_replica = make_single_communicator()};
}

}  // namespace mixtune
