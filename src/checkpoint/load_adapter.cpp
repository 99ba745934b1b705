#include "checkpoint/load_adapter.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "checkpoint/adapter_folder.h"
#include "checkpoint/convert.h"
#include "checkpoint/counted_part.h"
#include "state/adapter_names.h"

namespace mixtune {

namespace {

// "..., or set lora_r and lora_target_modules to what it has: 8, and o_proj, q_proj"
std::string other(const AdapterFolder& adapter) {
  std::set<std::string> modules;
  std::set<int64_t> ranks;
  for (const AdapterPair& pair : adapter.pairs()) {
    modules.insert(target_module(pair.module, AdapterNaming::kHub));
    ranks.insert(pair.rank);
  }
  const std::string there =
      modules.empty() ? "" : fmt::format(": {}, and {}", fmt::join(ranks, " or "), fmt::join(modules, ", "));
  return "name another adapter, or set lora_r and lora_target_modules to what it has" + there;
}

// The pair that a block of an adapter's parameter is a factor of.
struct Factor {
  const AdapterPair* pair;  // null: the folder has none
  AdapterFactor which;

  int64_t rank_of(const HfBlock& block) const { return block.shape()[which == AdapterFactor::kA ? 0 : 1]; }
};
Factor factor_of(const AdapterFolder& adapter, const HfBlock& block) {
  const AdapterTensorName name = parse_adapter_name(block.name, printable_path(adapter.path()));
  return {adapter.find(name.module), name.factor};
}

void check_factor(const AdapterFolder& adapter, const HfBlock& block, const AdapterRoom& room) {
  const Factor factor = factor_of(adapter, block);
  const std::string where = printable_path(adapter.path());
  if (factor.pair == nullptr) {
    if (room.pads) return;
    throw UserError(where, fmt::format("has no pair for {}", block.name), other(adapter));
  }
  const int64_t rank = factor.rank_of(block), has = factor.pair->rank;
  if (has == rank || (room.pads && has < rank)) return;
  throw UserError(where, fmt::format("has a pair of rank {} of {}, and lora_r is {}", has, factor.pair->module, rank),
                  other(adapter));
}

// Throws where the folder's pairs are not those of the state, on whatever rank they are.
void check_pairs(const AdapterFolder& adapter, const AdapterRoom& room, const State& state) {
  std::set<std::string> found;
  for (int param = 0; param < state.size(); ++param) {
    if (is_stored(state, param)) continue;
    for (const auto* blocks : {&state.spec(param).blocks, &state.spec(param).elsewhere})
      for (const HfBlock& block : *blocks) {
        check_factor(adapter, block, room);
        if (factor_of(adapter, block).pair != nullptr) found.insert(block.name);
      }
  }
  if (2 * adapter.pairs().size() == found.size()) return;
  throw UserError(
      printable_path(adapter.path()),
      fmt::format("has pairs of {} weights, and {} of them are to have some", adapter.pairs().size(), found.size() / 2),
      other(adapter));
}

constexpr const char* kOtherWhole = "name another adapter, or set modules_to_save to what it has";

// Whether a parameter is the model's, and trained beside the adapters.
bool is_whole(const State& state, int param) {
  return is_stored(state, param) && state.spec(param).trainable;
}

// The same of what the folder has whole.
void check_whole(const AdapterFolder& adapter, const AdapterRoom& room, const State& state) {
  const std::string where = printable_path(adapter.path());
  std::set<std::string> trained;
  for (int param = 0; param < state.size(); ++param) {
    if (!is_whole(state, param)) continue;
    for (const HfBlock& block : state.spec(param).blocks) {
      const std::string module = module_of(block.name);
      trained.insert(module);
      if (!room.pads && adapter.find_whole(module) == nullptr)
        throw UserError(where, fmt::format("has no whole {}", module), kOtherWhole);
    }
  }
  for (const AdapterWhole& whole : adapter.whole())
    if (!trained.contains(whole.module))
      throw UserError(where, fmt::format("has a whole {}, which is not to be trained", whole.module), kOtherWhole);
}

void check_digests(const std::string& folder, const StoredFiles& written) {
  const auto was = written.find(kAdapterWeightsFile);
  if (was == written.end()) return;
  const std::string path = folder + "/" + kAdapterWeightsFile;
  const StoredFile is = digest_file(path);
  if (is.xxh3 != was->second.xxh3)
    throw UserError(printable_path(path), changed_bytes(is.xxh3, was->second.xxh3), "resume from another checkpoint");
}

// The tensor that a block is of, row by row, with zeros where the folder has nothing.
std::vector<float> tensor_of(AdapterFolder& adapter, const HfBlock& block, double scale) {
  const Factor factor = factor_of(adapter, block);
  std::vector<float> values(static_cast<size_t>(block.shape().elements()));
  if (factor.pair == nullptr) return values;
  AdapterFactors read = adapter.read(*factor.pair);
  const bool is_a = factor.which == AdapterFactor::kA;
  const std::vector<float>& from = is_a ? read.a : read.b;
  const double times = is_a ? 1 : factor.pair->scaling / scale;
  const int64_t columns = block.shape()[1], has = is_a ? columns : factor.pair->rank;
  for (size_t i = 0; i < from.size(); ++i) {
    const auto row = static_cast<int64_t>(i) / has, column = static_cast<int64_t>(i) % has;
    values[static_cast<size_t>(row * columns + column)] = static_cast<float>(times * from[i]);
  }
  return values;
}

std::vector<float> values_of(AdapterFolder& adapter, const HfBlock& block, double scale) {
  const std::vector<float> all = tensor_of(adapter, block, scale);
  std::vector<float> values;
  block.box.for_each_run(0, block.elements(), [&](int64_t, int64_t place, int64_t n) {
    values.insert(values.end(), all.begin() + place, all.begin() + place + n);
  });
  return values;
}

// What this rank counts of a block gets `values_of(first, count)`. Whether all are finite; otherwise it is as it was.
template <class Values>
bool fill(Ctx& ctx, const State& state, int param, const HfBlock& block, Values&& values_of) {
  const CountedPart part = counted_between(state, param, state.primary(param), block, 0, block.elements());
  if (part.to.elements() == 0) return true;
  std::vector<std::byte> bytes(part.to.bytes());
  Tensor host = part.to;
  host.data = bytes.data();
  host.device = {};
  const std::vector<float> values = values_of(part.first, part.to.elements());
  if (!decode(std::as_bytes(std::span(values)), DType::kF32, host)) return false;
  copy(ctx, host, part.to);
  wait(ctx);
  return true;
}

bool fill_factor(Ctx& ctx, AdapterFolder& adapter, double scale, const State& state, int param, const HfBlock& block) {
  return fill(ctx, state, param, block, [&](int64_t first, int64_t count) {
    const std::vector<float> all = values_of(adapter, block, scale);
    return std::vector<float>(all.begin() + first, all.begin() + first + count);
  });
}

// The base's values stay where the folder has none.
bool fill_whole(Ctx& ctx, const AdapterFolder& adapter, const State& state, int param, const HfBlock& block) {
  const AdapterWhole* whole = adapter.find_whole(module_of(block.name));
  return whole == nullptr || fill(ctx, state, param, block,
                                  [&](int64_t first, int64_t count) { return adapter.read(*whole, first, count); });
}

}  // namespace

void load_adapter(Ctx& ctx, const std::string& folder, const AdapterRoom& room, State& state,
                  const StoredFiles& written) {
  AdapterFolder adapter(folder, base_shapes(state));
  check_pairs(adapter, room, state);
  check_whole(adapter, room, state);
  check_digests(folder, written);
  for (int param = 0; param < state.size(); ++param) {
    const bool whole = is_whole(state, param);
    if (is_stored(state, param) && !whole) continue;
    for (const HfBlock& block : state.spec(param).blocks)
      if (whole ? !fill_whole(ctx, adapter, state, param, block)
                : !fill_factor(ctx, adapter, room.scale, state, param, block))
        throw UserError(fmt::format("{}/{}: tensor {}", printable_path(folder), kAdapterWeightsFile,
                                    whole ? adapter.find_whole(module_of(block.name))->tensor->first : block.name),
                        "holds a value that is not finite", "get the adapter again");
    state.publish(ctx, param);
  }
  state.share_weights(ctx);
  wait(ctx);
}

}  // namespace mixtune
