#include "checkpoint/stream_weights.h"

#include "checkpoint/counted_part.h"
#include "checkpoint/stream.h"

namespace mixtune {

void stream_weights(Ctx& ctx, const HfFolder& folder, State& state, const StoredFiles& written) {
  std::vector<StreamUse> uses;
  for (int param = 0; param < state.size(); ++param)
    for (const HfBlock& slice : state.spec(param).blocks) {
      const CountedPart part = counted_part(state, param, slice);
      if (part.to.elements() == 0) continue;
      const HfFolder::Stored from = folder.stored(slice);
      slice.box.for_each_run(part.first, part.to.elements(), [&](int64_t index, int64_t place, int64_t count) {
        uses.push_back(
            {from.file, from.byte(place), from.dtype, part.to.slice(index - part.first, count), &slice.name});
      });
    }
  folder.check_unchanged();
  stream(ctx, std::move(uses), {folder.path(), written});
  folder.check_unchanged();
}

}  // namespace mixtune
