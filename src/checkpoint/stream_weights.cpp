#include "checkpoint/stream_weights.h"

#include <utility>

#include "checkpoint/counted_part.h"
#include "checkpoint/stream_values.h"

namespace mixtune {

namespace {

ValueUses uses_of(const HfFolder& folder, const State& state) {
  ValueUses uses;
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

}  // namespace

void stream_weights(Ctx& ctx, const HfFolder& folder, State& state, const StoredFiles& written) {
  ValueUses uses = uses_of(folder, state);
  folder.check_unchanged();
  stream_values(ctx, std::move(uses), {folder.path(), written});
  folder.check_unchanged();
}

}  // namespace mixtune
