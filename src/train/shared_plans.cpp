#include "train/shared_plans.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "kernels/warm_up.h"

namespace mixtune {

std::vector<int> choosers(const std::vector<std::string>& kinds) {
  std::vector<int> chooser;
  for (const std::string& kind : kinds)
    chooser.push_back(static_cast<int>(std::ranges::find(kinds, kind) - kinds.begin()));
  return chooser;
}

SharedPlans::SharedPlans(Instance& instance)
    : instance_(instance),
      chooser_(choosers(
          gather_texts(instance.ctx(), *instance.ranks().all, "kinds of GPUs", kind_of_gemm_choices(instance.ctx())))) {
  const int rank = instance.ranks().all->rank();
  if (chooser_[rank] != rank) choose_gemms_by_rule(instance.ctx());
}

std::string SharedPlans::finish() {
  Ctx& ctx = instance_.ctx();
  Communicator& ranks = *instance_.ranks().all;
  const int rank = ranks.rank(), chooser = chooser_[rank];
  const auto choices =
      gather_texts(ctx, ranks, "chosen algorithms", chooser == rank ? measured_gemm_choices(ctx) : std::string());
  if (chooser != rank) take_gemm_choices(ctx, choices[chooser]);
  const auto digests = gather_texts(ctx, ranks, "digests of chosen algorithms", digest_of_gemm_choices(ctx));
  if (digests[rank] != digests[chooser])
    throw Error("matrix products", fmt::format("rank {} cannot use the algorithms that rank {} chose", rank, chooser),
                "start all ranks with the same GPU driver and libraries");
  std::string all;
  for (int r = 0; r < ranks.size(); ++r)
    if (chooser_[r] == r) all += (all.empty() ? "" : " ") + digests[r];
  return all;
}

}  // namespace mixtune
