// CountedPart: what a rank reads of a checkpoint. Its ranks together read every byte once, and share it afterwards.
#pragma once

#include <algorithm>

#include "state/state.h"

namespace mixtune {

// Elements [first, first + to.elements()) of a block of a parameter, perhaps none, and the tensor they go to.
struct CountedPart {
  int64_t first;
  Tensor to;
};

// The elements among [slice_begin, slice_end) of the block that this rank counts. `held` is state.primary, or a moment.
inline CountedPart counted_between(const State& state, int param, const Tensor& held, const HfBlock& slice,
                                   int64_t slice_begin, int64_t slice_end) {
  const ParamLayout::Piece counted = state.layout().counted(param);
  const Tensor values = held.view({held.elements()});
  const bool is_weight = held.data == state.weight(param).data;
  const int64_t values_first = is_weight ? 0 : state.layout().owned(param).begin;  // what `values` begins with
  const int64_t begin = std::max(slice.offset + slice_begin, counted.begin),
                end = std::min(slice.offset + slice_end, counted.begin + counted.count);
  if (begin >= end) return {0, values.slice(0, 0)};
  return {begin - slice.offset, values.slice(begin - values_first, end - begin)};
}

inline bool is_stored(const State& state, int param) {
  return state.spec(param).origin == ParamSpec::Origin::kStored;
}

// The elements that this rank counts and the checkpoint has. Of a weight held as codes none: it is read as a whole.
inline CountedPart counted_part(const State& state, int param, const HfBlock& slice) {
  if (state.is_coded(param)) return {0, host_tensor(static_cast<float*>(nullptr), {0})};
  if (!is_stored(state, param)) return {0, state.primary(param).view({state.primary(param).elements()}).slice(0, 0)};
  return counted_between(state, param, state.primary(param), slice, 0, slice.stored_elements());
}

// The elements that this rank counts of the rows that the checkpoint lacks.
inline CountedPart added_part(const State& state, int param, const HfBlock& slice) {
  if (state.is_coded(param)) return {0, host_tensor(static_cast<float*>(nullptr), {0})};
  return counted_between(state, param, state.primary(param), slice, slice.stored_elements(), slice.elements());
}

}  // namespace mixtune
