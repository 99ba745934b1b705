// blend_order: the order of documents in an epoch of a blend of data sets.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mixtune {

struct BlendPart {
  int64_t documents;  // at least one; parts stand one after the other
  double weight;      // above 0

  bool operator==(const BlendPart&) const = default;
};

// Draws as many documents as the parts have together, by Megatron's greedy rule (data/blend.h). A part gives its own in
// their order, or shuffled, and begins anew, shuffled anew, when it has given all. So a part with a small share gives
// some in one epoch and others in the next; one with a large share gives them several times. Takes 4 bytes a document
// for the order and 4 for the parts.
std::vector<uint32_t> blend_order(std::span<const BlendPart> parts, bool shuffle, uint64_t seed);

}  // namespace mixtune
