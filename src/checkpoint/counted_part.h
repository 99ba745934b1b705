// What a rank reads of a checkpoint: its ranks together read every byte once, and share it after.
#pragma once

#include <algorithm>

#include "state/state.h"

namespace mixtune {

// Elements [first, first + to.elements()) of a slice of a parameter, perhaps none, and where they go.
struct CountedPart {
  int64_t first;
  Tensor to;
};

inline CountedPart counted_part(const State& state, int param, const HfSlice& slice) {
  const State::Piece counted = state.counted(param);
  const Tensor primary = state.primary(param), values = primary.view({primary.elements()});
  const int64_t values_first = state.master(param) ? state.owned(param).begin : 0;  // what `values` begins with
  const int64_t begin = std::max(slice.offset, counted.begin),
                end = std::min(slice.offset + slice.elements(), counted.begin + counted.count);
  if (begin >= end) return {0, values.slice(0, 0)};
  return {begin - slice.offset, values.slice(begin - values_first, end - begin)};
}

}  // namespace mixtune
