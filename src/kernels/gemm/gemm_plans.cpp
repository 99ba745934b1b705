#include "kernels/gemm/gemm_plans.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>

#include "kernels/gemm/gemm_tuner.h"

namespace mixtune {

namespace {

constexpr size_t kCandidates = 8;

std::string file_name(const std::string& machine) {
  std::string name = "gemm-" + machine + ".txt";
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '.') c = '-';
  return name;
}

}  // namespace

GemmPlans::GemmPlans(Gpu& gpu)
    : gpu_(gpu),
      machine_(fmt::format("{}, cuBLASLt {}", gpu_info(gpu.device().index).name, lt_.version())),
      by_rule_(gpu.options().deterministic) {
  if (!gpu.options().plan_cache.empty()) path_ = gpu.options().plan_cache + "/" + file_name(machine_);
}

void GemmPlans::set_max_tokens(int64_t tokens, int64_t group_rows) {
  max_tokens_ = tokens;
  max_group_rows_ = group_rows;
}

void GemmPlans::add(Ctx& ctx, const GemmProduct& product, int64_t most) {
  const GemmKey& shape = product.shape;
  if (shape.tokens() > 0 || (gpu_.warming_up() && shape.has_buckets()))
    prepare(ctx, shape.with_tokens(std::max<int64_t>(shape.tokens(), 1)), most);
  if (shape.m == 0 || shape.n == 0) return;
  if (shape.k > 0)
    products_.push_back(product);
  else if (!shape.accumulate)
    check_cuda(cudaMemsetAsync(product.c, 0, shape.m * shape.n * dtype_size(shape.result), gpu_.stream()), "gemm");
}

void GemmPlans::run_added() {
  const int sides = static_cast<int>(std::min<size_t>(products_.size(), useful_streams()));
  if (sides < 2) {
    for (const GemmProduct& product : products_) multiply(product, -1);
    return;
  }
  // The largest products go first, each to the stream with the least to do.
  std::sort(products_.begin(), products_.end(), [](const GemmProduct& x, const GemmProduct& y) {
    return std::pair(y.shape.tokens(), x.c) < std::pair(x.shape.tokens(), y.c);
  });
  std::array<int64_t, Gpu::kSideStreams> load{};
  gpu_.fork(sides);
  for (const GemmProduct& product : products_) {
    const auto side = std::min_element(load.begin(), load.begin() + sides);
    multiply(product, static_cast<int>(side - load.begin()));
    *side += product.shape.tokens();
  }
  gpu_.join(sides);
}

// Products that fill the GPU several times over only disturb each other's cache when more than two run side by side
// (docs/performance.md); small ones need company.
int GemmPlans::useful_streams() const {
  constexpr int64_t kTile = 128 * 256, kWaves = 2;
  int64_t largest = 0;
  for (const GemmProduct& product : products_) largest = std::max(largest, product.shape.m * product.shape.n / kTile);
  return largest >= kWaves * gpu_.multiprocessors() ? 2 : Gpu::kSideStreams;
}

void GemmPlans::multiply(const GemmProduct& product, int side) {
  const GemmPlace place = {gpu_.workspace(side), Gpu::kWorkspaceBytes,
                           side < 0 ? gpu_.stream() : gpu_.side_stream(side)};
  const auto chosen = choices_.find(product.shape.bucket());
  if (chosen != choices_.end() && lt_.multiply(product, chosen->second.algorithm, place)) return;
  auto exact = exact_.find(product.shape);
  if (exact == exact_.end()) {
    exact = exact_.emplace(product.shape, take_first(product.shape)).first;
    gpu_.count_plan();
  }
  if (!lt_.multiply(product, exact->second.algorithm, place))
    throw Error("cuBLASLt", fmt::format("does not take its own algorithm for {}", product.shape.str()),
                "please report this");
}

// The library's first algorithm. Nothing else may have a say, or ranks and runs would choose differently.
GemmChoice GemmPlans::take_first(const GemmKey& shape) const {
  std::array<GemmAlgorithm, kCandidates> found;
  if (lt_.candidates(shape, Gpu::kWorkspaceBytes, found) == 0)
    throw Error("cuBLASLt", fmt::format("has no algorithm for {}", shape.str()), "please report this");
  return {found[0]};
}

const GemmChoice* GemmPlans::stored(const GemmKey& bucket) {
  if (!stored_) stored_ = path_.empty() ? GemmChoices{} : read_choices(path_, machine_);
  const auto found = stored_->find(bucket);
  const bool fits = found != stored_->end() && found->second.microseconds > 0 &&
                    lt_.fits(bucket, Gpu::kWorkspaceBytes, found->second.algorithm);
  return fits ? &found->second : nullptr;
}

void GemmPlans::prepare(Ctx& ctx, const GemmKey& shape, int64_t most) {
  const GemmKey bucket = shape.bucket();
  if (bucket.m == 0 || bucket.n == 0 || bucket.k == 0 || choices_.contains(bucket)) return;
  if (!gpu_.warming_up()) {
    choices_.emplace(bucket, take_first(bucket));
    gpu_.count_plan();
    return;
  }
  const bool all = most > 0 && bucket.has_buckets();
  const int64_t last = all ? std::max(bucket.tokens(), token_bucket(most)) : bucket.tokens();
  GemmTuner tuner(ctx, lt_, bucket.with_tokens(last));
  for (int64_t tokens = all ? token_bucket(1) : last; tokens <= last; tokens = token_bucket(tokens + 1))
    choose(tuner, bucket.with_tokens(tokens));
}

void GemmPlans::choose(GemmTuner& tuner, const GemmKey& bucket) {
  if (choices_.contains(bucket)) return;
  std::array<GemmAlgorithm, kCandidates> found;
  const int count = lt_.candidates(bucket, Gpu::kWorkspaceBytes, found);
  if (count == 0) return;
  if (by_rule_) {
    choices_.emplace(bucket, GemmChoice{found[0]});
    return;
  }
  if (const GemmChoice* choice = stored(bucket)) {
    choices_.emplace(bucket, *choice);
    return;
  }
  const GemmChoice choice = tuner.choose(bucket, std::span(found).first(count));
  if (gpu_.options().advanced) gpu_.options().advanced();
  choices_.emplace(bucket, choice);
  if (choice.microseconds > 0) measured_.emplace(bucket, choice);
}

void GemmPlans::take_choices(std::string_view text) {
  for (const auto& [key, choice] : parse_choices(text, machine_).choices)
    if (lt_.fits(key, Gpu::kWorkspaceBytes, choice.algorithm)) choices_.insert_or_assign(key, choice);
}

void GemmPlans::save() const {
  if (!path_.empty() && !measured_.empty()) add_choices(path_, machine_, measured_);
}

}  // namespace mixtune
