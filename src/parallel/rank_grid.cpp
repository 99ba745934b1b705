#include "parallel/rank_grid.h"

#include <fmt/format.h>

#include <vector>

#include "base/error.h"

namespace mixtune {

namespace {

// "use 1, 2, 4 or 8": what divides both.
std::string divisors(int world, int64_t experts) {
  std::vector<int> fit;
  for (int ep = 1; ep <= world; ++ep)
    if (world % ep == 0 && experts % ep == 0) fit.push_back(ep);
  std::string text = "use ";
  for (size_t i = 0; i < fit.size(); ++i)
    text += fmt::format("{}{}", i == 0 ? "" : i + 1 < fit.size() ? ", " : " or ", fit[i]);
  return text;
}

std::string ranks(int n) {
  return fmt::format("{} rank{}", n, n == 1 ? "" : "s");
}

}  // namespace

RankGrid::Experts RankGrid::experts(int64_t experts) const {
  MT_CHECK(experts % expert_parallel == 0);
  const int64_t count = experts / expert_parallel;
  return {ep_rank() * count, count};
}

std::string RankGrid::str() const {
  return fmt::format("{}: ep {} x edp {}", ranks(world), expert_parallel, expert_data_parallel());
}

RankGrid make_rank_grid(int world, int rank, int expert_parallel, int64_t experts, const std::string& where) {
  MT_CHECK(world > 0 && rank >= 0 && rank < world && experts >= 0);
  const int ep = expert_parallel;
  if (ep < 1) throw UserError(where, fmt::format("{} is less than 1", ep), divisors(world, experts));
  const auto divide = [&](int64_t n, const std::string& things) {
    if (n % ep != 0)
      throw UserError(
          where, fmt::format("{} does not divide {}: {} / {} = {} remainder {}", ep, things, n, ep, n / ep, n % ep),
          divisors(world, experts));
  };
  divide(world, ranks(world));
  divide(experts, fmt::format("{} expert{}", experts, experts == 1 ? "" : "s"));
  return {.world = world, .rank = rank, .expert_parallel = ep};
}

}  // namespace mixtune
