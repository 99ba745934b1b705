// SharedPlans: one rank chooses the algorithms of matrix products for all ranks that have a GPU of its kind, so that
// the same product is added up in the same order wherever it is computed.
#pragma once

#include <string>
#include <vector>

#include "model/instance.h"

namespace mixtune {

// The rank that chooses for each rank: the first of the same kind (kind_of_gemm_choices).
std::vector<int> choosers(const std::vector<std::string>& kinds);

class SharedPlans {
 public:
  // All ranks make one before warm-up. Until finish() ranks that do not choose take algorithms that need no measuring.
  explicit SharedPlans(Instance& instance);

  // Spreads the choices. All ranks call this after the products of warm-up; no later choice needs another rank. Returns
  // the choices' digests (digest_of_gemm_choices), one of each kind. Throws Error where a rank cannot use them.
  std::string finish();

 private:
  Instance& instance_;
  std::vector<int> chooser_;  // of each rank
};

}  // namespace mixtune
