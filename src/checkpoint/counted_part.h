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

// Of elements [slice_begin, slice_end) of the slice, those that this rank counts.
inline CountedPart counted_between(const State& state, int param, const HfBlock& slice, int64_t slice_begin,
                                   int64_t slice_end) {
  const ParamLayout::Piece counted = state.layout().counted(param);
  const Tensor primary = state.primary(param), values = primary.view({primary.elements()});
  const int64_t values_first =
      state.master(param) ? state.layout().owned(param).begin : 0;  // what `values` begins with
  const int64_t begin = std::max(slice.offset + slice_begin, counted.begin),
                end = std::min(slice.offset + slice_end, counted.begin + counted.count);
  if (begin >= end) return {0, values.slice(0, 0)};
  return {begin - slice.offset, values.slice(begin - values_first, end - begin)};
}

inline bool is_stored(const State& state, int param) {
  return state.spec(param).origin == ParamSpec::Origin::kStored;
}

// Of what the checkpoint has.
inline CountedPart counted_part(const State& state, int param, const HfBlock& slice) {
  if (!is_stored(state, param)) return {0, state.primary(param).view({state.primary(param).elements()}).slice(0, 0)};
  return counted_between(state, param, slice, 0, slice.stored_elements());
}

// Of the rows that it lacks.
inline CountedPart added_part(const State& state, int param, const HfBlock& slice) {
  return counted_between(state, param, slice, slice.stored_elements(), slice.elements());
}

}  // namespace mixtune
