#include "checkpoint/stream_weights.h"

#include <algorithm>

#include "checkpoint/convert.h"
#include "checkpoint/counted_part.h"
#include "checkpoint/stream.h"
#include "checkpoint/upload.h"

namespace mixtune {

namespace {

// Elements [place, place + to.elements()) of a tensor in 4 bits, and the tensor that they fill.
struct CodedUse {
  StoredValues from;
  int64_t place;
  Tensor to;
  const std::string* name;  // for messages
};

// What this rank reads.
struct Uses {
  std::vector<StreamUse> values;
  std::vector<CodedUse> coded;

  void add(const StoredValues& from, int64_t place, const Tensor& to, const std::string& name) {
    if (from.four_bit == nullptr) {
      values.push_back({from.file, from.byte(place), from.dtype, to, &name});
      return;
    }
    constexpr uint64_t kMost = 1 << 20;  // bytes of values at once: what stream() takes of the stack on the CPU
    for (int64_t done = 0; done < to.elements(); done += from.at_once(kMost))
      coded.push_back({from, place + done, to.slice(done, std::min(from.at_once(kMost), to.elements() - done)), &name});
  }
};

Uses uses_of(const HfFolder& folder, const State& state) {
  Uses uses;
  for (int param = 0; param < state.size(); ++param)
    for (const HfBlock& slice : state.spec(param).blocks) {
      const CountedPart part = counted_part(state, param, slice);
      if (part.to.elements() == 0) continue;
      const StoredValues from = folder.stored(slice);
      slice.box.for_each_run(part.first, part.to.elements(), [&](int64_t index, int64_t place, int64_t count) {
        uses.add(from, place, part.to.slice(index - part.first, count), slice.name);
      });
    }
  return uses;
}

// Dequantises on the host.
void stream_coded(Ctx& ctx, std::vector<CodedUse> uses) {
  std::ranges::sort(uses, {}, [](const CodedUse& use) {
    return std::pair(use.from.file, use.from.stretch(use.place, use.to.elements()).begin);
  });
  std::vector<FileStretch> stretches;
  for (const CodedUse& use : uses) stretches.push_back(use.from.stretch(use.place, use.to.elements()));
  std::vector<std::byte> buffer;
  read_in_turn(stretches, [&](size_t i, std::span<const std::byte> bytes) {
    const auto& [from, place, to, name] = uses[i];
    const std::span<const std::byte> values = from.values(place, to.elements(), bytes, buffer);
    if (!all_finite(values, from.dtype)) throw_not_finite(*from.file, *name);
    upload(ctx, values, from.dtype, to);
    wait(ctx);
  });
}

}  // namespace

void stream_weights(Ctx& ctx, const HfFolder& folder, State& state, const StoredFiles& written) {
  Uses uses = uses_of(folder, state);
  folder.check_unchanged();
  stream(ctx, std::move(uses.values), {folder.path(), written});
  stream_coded(ctx, std::move(uses.coded));
  folder.check_unchanged();
}

}  // namespace mixtune
