#include "train/memory_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <tuple>

#include "config/load.h"
#include "train/instance_options.h"
#include "train/memory_plan.h"
#include "train/memory_savings.h"

namespace mixtune {

namespace {

constexpr int kMostRanks = 64;

// A configuration on a number of ranks, and how it came from the given one.
struct Candidate {
  int ranks;
  Config config;
  std::vector<Change> changes;
  int64_t other_batch = 0;  // Fit::other_batch

  void set(std::string_view key, int64_t value) { change({key, fmt::format("{}", value), false, false}); }
  void set_other_numbers(std::string_view key, std::string_view value) {
    change({key, std::string(value), false, true});
  }
  void change(const Saving& saving) {
    config = with(std::move(config), saving.key, saving.value);
    const auto known = std::ranges::find(changes, saving.key, &Change::key);
    if (known != changes.end()) changes.erase(known);
    changes.push_back({std::string(saving.key), saving.value, saving.changes_numbers});
  }
};

int64_t rows_of_step(const Config& config, int64_t ranks) {
  return config.batch.per_device_train_batch_size * config.batch.gradient_accumulation_steps * ranks;
}

auto cost(const Fit& fit) {
  return std::make_tuple(std::ranges::count_if(fit.changes, &Change::changes_numbers) + (fit.other_batch > 0),
                         fit.changes.size());
}

class Search {
 public:
  Search(const MixtralConfig& shape, const Config& config, int ranks, size_t memory)
      : shape_(shape), given_(config), memory_(memory), rows_(0) {
    resolve_global_batch_size(given_, ranks);
    rows_ = rows_of_step(given_, ranks);
  }

  // The layout with the least change that fits on so many ranks.
  std::optional<Fit> on(int ranks) {
    std::optional<Fit> best;
    for (int64_t ep = 1; ep <= std::min<int64_t>(ranks, shape_.num_local_experts); ++ep)
      if (ranks % ep == 0 && shape_.num_local_experts % ep == 0)
        for (const bool smaller_batches : {false, true}) {
          auto fit = with_experts_over(ranks, ep, smaller_batches);
          if (fit && (!best || cost(*fit) < cost(*best))) best = std::move(fit);
        }
    return best;
  }

  size_t plans() const { return plans_; }  // made so far

 private:
  // Keeps the global batch as far as the ranks can share it.
  void share_batch(Candidate& candidate, int64_t per_device) const {
    const int64_t ranks = candidate.ranks, given = given_.batch.per_device_train_batch_size;
    int64_t rows = std::min(per_device, std::max<int64_t>(rows_ / ranks, 1));
    for (int64_t fewer = rows; fewer > 0; --fewer)
      if (rows_ % (fewer * ranks) == 0) {
        rows = fewer;
        break;
      }
    const int64_t steps = std::max<int64_t>(rows_ / (rows * ranks), 1);
    if (rows != given) candidate.set("per_device_train_batch_size", rows);
    candidate.other_batch = rows * ranks * steps == rows_ ? 0 : rows * ranks * steps;
    if (given_.batch.global_batch_size == 0) {
      if (steps != given_.batch.gradient_accumulation_steps) candidate.set("gradient_accumulation_steps", steps);
    } else if (candidate.other_batch > 0) {
      candidate.set("global_batch_size", candidate.other_batch);
    }
    candidate.config.batch.gradient_accumulation_steps = steps;
    if (steps > 1 && candidate.config.compute.gradient_dtype == StateDType::kBf16)  // which hold one micro-batch alone
      candidate.set_other_numbers("gradient_dtype", "fp32");
  }

  Candidate start(int ranks, int64_t expert_parallel) const {
    Candidate candidate{ranks, given_, {}};
    if (expert_parallel != given_.parallel.expert_model_parallel_size)
      candidate.set("expert_model_parallel_size", expert_parallel);
    share_batch(candidate, given_.batch.per_device_train_batch_size);
    return candidate;
  }

  void apply(Candidate& candidate, const Saving& saving) const {
    if (saving.key != "per_device_train_batch_size") return candidate.change(saving);
    std::erase_if(candidate.changes, [](const Change& change) {
      return change.key == "per_device_train_batch_size" || change.key == "gradient_accumulation_steps" ||
             change.key == "global_batch_size";
    });
    share_batch(candidate, candidate.config.batch.per_device_train_batch_size / 2);
  }

  // Applies savings one after the other until it fits; then leaves out those that turn out to be needless.
  std::optional<Fit> with_experts_over(int ranks, int64_t expert_parallel, bool smaller_batches) {
    const Candidate first = start(ranks, expert_parallel);
    std::vector<Saving> applied;
    Candidate candidate = first;
    const auto next = [&]() -> std::optional<Saving> {
      for (const Saving& saving : savings(candidate.config, ranks))
        if (smaller_batches || saving.key != "per_device_train_batch_size") return saving;
      return std::nullopt;
    };
    while (const auto saving = next()) applied.push_back(*saving), apply(candidate, *saving);
    if (!fits(candidate)) return std::nullopt;  // all savings do not suffice
    size_t count = 0;
    for (candidate = first; !fits(candidate); ++count) apply(candidate, applied[count]);
    applied.resize(count);
    for (size_t i = count; i-- > 0;) {
      std::vector<Saving> fewer = applied;
      fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
      Candidate other = first;
      for (const Saving& saving : fewer) apply(other, saving);
      if (fits(other)) applied = std::move(fewer), candidate = std::move(other);
    }
    return Fit{ranks, candidate.changes, candidate.other_batch, need(candidate).value()};
  }

  // The bytes a GPU needs; empty where the keys do not go together, as when one was left out that another needs.
  std::optional<size_t> need(const Candidate& candidate) {
    const Config& config = candidate.config;
    const Ranks ranks = planned_ranks(
        {.world = candidate.ranks, .expert_parallel = static_cast<int>(config.parallel.expert_model_parallel_size)});
    const int64_t rows = config.batch.per_device_train_batch_size, length = config.data.max_seq_length;
    std::optional<InstanceOptions> options;
    try {
      options = planned_options(config, ranks);
    } catch (const UserError&) {
      return std::nullopt;
    }
    ++plans_;
    return plan_memory(shape_, *options, {.tokens = rows * length, .longest_document = length, .documents = rows},
                       kWorstRouting)
        .least();
  }
  bool fits(const Candidate& candidate) {
    const std::optional<size_t> bytes = need(candidate);
    return bytes && *bytes <= memory_;
  }

  const MixtralConfig& shape_;
  Config given_;
  size_t memory_;
  int64_t rows_;  // of an optimizer step
  size_t plans_ = 0;
};

}  // namespace

bool Fit::changes_numbers() const {
  return other_batch > 0 || std::ranges::any_of(changes, &Change::changes_numbers);
}

std::vector<Fit> search_fits(const MixtralConfig& shape, const Config& config, int ranks, size_t memory,
                             size_t* plans) {
  Search search(shape, config, ranks, memory);
  std::set<int> counts = {ranks};
  for (int count = 1; count <= kMostRanks; count *= 2) counts.insert(count);
  std::vector<Fit> same, other;  // numbers; in the order of ranks
  for (const int count : counts) {
    if (!same.empty() && count > ranks) break;
    std::optional<Fit> fit = search.on(count);
    if (!fit) continue;
    if (!fit->changes_numbers()) {
      if (same.empty() || count == ranks) same.insert(same.begin(), std::move(*fit));
    } else if (same.empty() && (other.empty() || cost(*fit) < cost(other.front()))) {
      other.insert(other.begin(), std::move(*fit));
    }
  }
  if (plans) *plans = search.plans();
  same.insert(same.end(), other.begin(), other.end());
  return same;
}

}  // namespace mixtune
