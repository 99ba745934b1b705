#include "parallel/rank_grid.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include "base/error.h"

namespace mixtune {

namespace {

// "use 1, 2, 4 or 8": the numbers that divide both.
std::string divisors(int world, int64_t experts) {
  std::vector<int> fit;
  for (int ep = 1; ep <= world; ++ep)
    if (world % ep == 0 && experts % ep == 0) fit.push_back(ep);
  std::string text = "use ";
  for (size_t i = 0; i < fit.size(); ++i)
    text += fmt::format("{}{}", i == 0 ? "" : i + 1 < fit.size() ? ", " : " or ", fit[i]);
  return text;
}

std::string count_ranks(int n) {
  return fmt::format("{} rank{}", n, n == 1 ? "" : "s");
}

}  // namespace

bool RankGrid::legal() const {
  for (const int n :
       {world, tensor_parallel, context_parallel, pipeline_parallel, expert_tensor_parallel, expert_parallel})
    if (n < 1) return false;
  return rank >= 0 && rank < world && world % pipeline_parallel == 0 &&
         world / pipeline_parallel % (int64_t{tensor_parallel} * context_parallel) == 0 &&
         world / pipeline_parallel % (int64_t{expert_tensor_parallel} * expert_parallel) == 0;
}

std::array<RankGrid::Extent, 4> RankGrid::layout(Axes axes) const {
  const bool of_attention = axes.contains(Axis::kTp) || axes.contains(Axis::kCp) || axes.contains(Axis::kDp);
  const bool of_experts = axes.contains(Axis::kEtp) || axes.contains(Axis::kEp) || axes.contains(Axis::kEdp);
  MT_CHECK(legal() && !(of_attention && of_experts));
  const int stage = world / pipeline_parallel;
  const Extent stages = {Axis::kPp, pipeline_parallel};
  if (of_experts)
    return {{{Axis::kEtp, expert_tensor_parallel},
             {Axis::kEp, expert_parallel},
             {Axis::kEdp, stage / (expert_tensor_parallel * expert_parallel)},
             stages}};
  return {{{Axis::kTp, tensor_parallel},
           {Axis::kCp, context_parallel},
           {Axis::kDp, stage / (tensor_parallel * context_parallel)},
           stages}};
}

int RankGrid::size(Axes axes) const {
  int size = 1;
  for (const Extent& extent : layout(axes))
    if (axes.contains(extent.axis)) size *= extent.size;
  return size;
}

int RankGrid::place(Axes axes, bool along) const {
  int place = 0, places = 1, rest = rank;
  for (const Extent& extent : layout(axes)) {
    if (axes.contains(extent.axis) == along) {
      place += rest % extent.size * places;
      places *= extent.size;
    }
    rest /= extent.size;
  }
  return place;
}

int RankGrid::position(Axes axes) const {
  return place(axes, true);
}

int RankGrid::color(Axes axes) const {
  return place(axes, false);
}

std::vector<int> RankGrid::ranks(Axes axes) const {
  std::vector<int> ranks = {0};
  int stride = 1;
  for (const Extent& extent : layout(axes)) {
    const std::vector<int> before = std::exchange(ranks, {});
    const int own = rank / stride % extent.size;
    for (int place = 0; place < extent.size; ++place)
      if (axes.contains(extent.axis) || place == own)
        for (const int each : before) ranks.push_back(each + place * stride);
    stride *= extent.size;
  }
  return ranks;
}

RankGrid::Experts RankGrid::experts(int64_t experts) const {
  MT_CHECK(experts % expert_parallel == 0);
  const int64_t count = experts / expert_parallel;
  return {position(Axis::kEp) * count, count};
}

std::string RankGrid::str() const {
  const int ep = expert_parallel, edp = size(Axis::kEdp);
  if (size({Axis::kTp, Axis::kCp, Axis::kPp}) * expert_tensor_parallel == 1)
    return fmt::format("{}: ep {} x edp {}", count_ranks(world), ep, edp);
  return fmt::format("{}: tp {} x cp {} x dp {} x pp {}, etp {} x ep {} x edp {}", count_ranks(world), tensor_parallel,
                     context_parallel, size(Axis::kDp), pipeline_parallel, expert_tensor_parallel, ep, edp);
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
  divide(world, count_ranks(world));
  divide(experts, fmt::format("{} expert{}", experts, experts == 1 ? "" : "s"));
  return {.world = world, .rank = rank, .expert_parallel = ep};
}

}  // namespace mixtune
