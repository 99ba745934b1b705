#include "checkpoint/load_adapter.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <vector>

#include "base/error.h"
#include "checkpoint/adapter_folder.h"
#include "checkpoint/adapter_names.h"
#include "checkpoint/convert.h"
#include "checkpoint/counted_part.h"

namespace mixtune {

namespace {

constexpr const char* kOther = "name another adapter, or set lora_r and lora_target_modules to what it has";

// The pair that a block of an adapter's parameter is a factor of.
struct Factor {
  const AdapterPair& pair;
  AdapterFactor which;
};
Factor factor_of(const AdapterFolder& adapter, const HfBlock& block) {
  const std::string where = printable_path(adapter.path());
  const AdapterTensorName name = parse_adapter_name(block.name, where);
  const AdapterPair* pair = adapter.find(name.module);
  if (pair == nullptr) throw UserError(where, fmt::format("has no pair of {}", name.module), kOther);
  const int64_t rank = block.shape()[name.factor == AdapterFactor::kA ? 0 : 1];
  if (pair->rank != rank)
    throw UserError(where, fmt::format("has a pair of rank {} of {}, and lora_r is {}", pair->rank, name.module, rank),
                    kOther);
  return {*pair, name.factor};
}

// Throws where the folder's pairs are not those of the state, on whatever rank they are.
void check_pairs(const AdapterFolder& adapter, const State& state) {
  size_t factors = 0;
  for (int param = 0; param < state.size(); ++param) {
    if (is_stored(state, param)) continue;
    for (const auto* blocks : {&state.spec(param).blocks, &state.spec(param).elsewhere})
      for (const HfBlock& block : *blocks) {
        factor_of(adapter, block);
        ++factors;
      }
  }
  if (2 * adapter.pairs().size() == factors) return;
  throw UserError(
      printable_path(adapter.path()),
      fmt::format("has pairs of {} projections, and lora_target_modules names {}", adapter.pairs().size(), factors / 2),
      kOther);
}

void check_digests(const std::string& folder, const StoredFiles& written) {
  const auto was = written.find(kAdapterWeightsFile);
  if (was == written.end()) return;
  const std::string path = folder + "/" + kAdapterWeightsFile;
  const StoredFile is = digest_file(path);
  if (is.xxh3 != was->second.xxh3)
    throw UserError(printable_path(path), changed_bytes(is.xxh3, was->second.xxh3), "resume from another checkpoint");
}

// What this rank counts of a block gets its part of `values`.
void fill(Ctx& ctx, const State& state, int param, const HfBlock& block, std::span<const float> values) {
  const CountedPart part = counted_between(state, param, state.primary(param), block, 0, block.elements());
  const int64_t n = part.to.elements();
  if (n == 0) return;
  std::vector<std::byte> bytes(part.to.bytes());
  Tensor host = part.to;
  host.data = bytes.data();
  host.device = {};
  if (!decode(std::as_bytes(values.subspan(static_cast<size_t>(part.first), static_cast<size_t>(n))), DType::kF32,
              host))
    throw UserError(block.name, "holds a value that is not finite", "get the adapter again");
  copy(ctx, host, part.to);
  wait(ctx);
}

}  // namespace

void load_adapter(Ctx& ctx, const std::string& folder, double scale, State& state, const StoredFiles& written) {
  AdapterFolder adapter(folder, base_shapes(state));
  check_pairs(adapter, state);
  check_digests(folder, written);
  for (int param = 0; param < state.size(); ++param) {
    if (is_stored(state, param)) continue;
    for (const HfBlock& block : state.spec(param).blocks) {
      const auto& [pair, which] = factor_of(adapter, block);
      AdapterFactors factors = adapter.read(pair);
      if (which == AdapterFactor::kB && pair.scaling != scale)
        for (float& b : factors.b) b = static_cast<float>(b * (pair.scaling / scale));
      fill(ctx, state, param, block, which == AdapterFactor::kA ? factors.a : factors.b);
    }
    state.publish(ctx, param);
  }
  state.share_weights(ctx);
  wait(ctx);
}

}  // namespace mixtune
