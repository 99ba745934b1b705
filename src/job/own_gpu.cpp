#include "job/own_gpu.h"

#include <fmt/format.h>

#include <map>

#include "base/error.h"

namespace mixtune {

namespace {

constexpr const char* kVerdict = "gpus";

std::string key_of(const char* what, int rank) {
  return fmt::format("gpu/{}/{}", what, rank);
}

// The ranks that share a GPU, as a line; "" where there are none.
std::string shared_gpu(Store& store, int size) {
  std::map<std::string, int> ranks;
  for (int rank = 0; rank < size; ++rank) {
    const std::string id = store.get(rank, key_of("id", rank));
    if (id.empty()) continue;
    const auto [first, is_new] = ranks.emplace(id, rank);
    if (!is_new)
      return fmt::format("ranks {} and {} both compute on {}", first->second, rank,
                         printable(store.get(rank, key_of("place", rank))));
  }
  return "";
}

}  // namespace

void check_own_gpu(Store& store, int rank, int size, const OwnGpu& gpu) {
  store.set(key_of("place", rank), gpu.place);
  store.set(key_of("id", rank), gpu.id);
  if (rank == 0) store.set(kVerdict, shared_gpu(store, size));
  if (const std::string shared = store.get(0, kVerdict); !shared.empty())
    throw UserError("", shared, "start at most one rank for each GPU of a machine, or set device: cpu");
}

}  // namespace mixtune
