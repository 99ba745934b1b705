// The part of a matrix with its largest singular values, as a pair of an adapter: what PiSSA (Meng et al. 2024) begins
// with.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mixtune {

struct PrincipalPair {
  std::vector<float> a, b;  // [rank, in], [out, rank]
};

// Of w [out, in], row by row: s B A is about U S V^T of the `rank` largest singular values S, largest first, and
// B = U sqrt(S / s), A = sqrt(S / s) V^T, as PEFT has them. rank <= min(out, in), s > 0. By subspace iteration from
// random vectors of `key` (Halko et al. 2009): values that are near each other may come mixed. Where w has fewer than
// `rank` values that are not 0, the others' rows and columns are 0. All numbers are the same whatever the number of
// threads, on processors of one kind.
PrincipalPair principal_pair(std::span<const float> w, int64_t out, int64_t in, int64_t rank, double s, uint64_t key);

}  // namespace mixtune
