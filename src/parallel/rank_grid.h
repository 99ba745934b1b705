// RankGrid: each rank's part in the work (docs/design.md, section 5). A value: no process, no device.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

namespace mixtune {

// The axes of ranks: attention tp x cp x dp x pp, experts etp x ep x edp x pp. The first of each varies fastest.
enum class Axis { kTp, kCp, kDp, kEtp, kEp, kEdp, kPp };

// A set of axes, those of attention or those of experts.
class Axes {
 public:
  constexpr Axes(Axis axis) : bits_(bit(axis)) {}
  constexpr Axes(std::initializer_list<Axis> axes) {
    for (const Axis axis : axes) bits_ |= bit(axis);
  }
  constexpr bool contains(Axis axis) const { return (bits_ & bit(axis)) != 0; }

 private:
  static constexpr unsigned bit(Axis axis) { return 1u << static_cast<int>(axis); }

  unsigned bits_ = 0;
};

constexpr Axes kAllAxes = {Axis::kTp, Axis::kCp, Axis::kDp, Axis::kPp};
// The axes along which ranks have other tokens. The dense parameters' copies lie along the same ones.
constexpr Axes kDataAxes = {Axis::kCp, Axis::kDp};

// The layout of ranks, in the order tp-cp-ep-dp-pp. Groups of `ep` neighbours share the experts, and ranks of the same
// place in their group hold the same ones. Experts need not be laid out as attention is: etp x ep divides tp x cp x dp.
struct RankGrid {
  int world = 1, rank = 0;
  int tensor_parallel = 1, context_parallel = 1, pipeline_parallel = 1;  // of dense layers
  int expert_tensor_parallel = 1, expert_parallel = 1;                   // of experts, in as many pipeline stages

  // Whether the sizes divide the world as above, and the rank is in it. All other functions need a legal grid.
  bool legal() const;

  // A group is the ranks that differ from this one along `axes` alone, in the order of their ranks.
  int size(Axes axes) const;
  int position(Axes axes) const;            // of this rank in its group; along one axis, its place on it
  int color(Axes axes) const;               // the group's number: 0, 1, ... groups - 1
  std::vector<int> ranks(Axes axes) const;  // of the group

  // The experts of this rank: [first, first + count).
  struct Experts {
    int64_t first, count;
  };
  Experts experts(int64_t experts) const;

  // "8 ranks: ep 4 x edp 2"; where another axis is larger than 1,
  // "16 ranks: tp 2 x cp 1 x dp 4 x pp 2, etp 1 x ep 4 x edp 2".
  std::string str() const;

 private:
  struct Extent {
    Axis axis;
    int size;
  };
  std::array<Extent, 4> layout(Axes axes) const;
  // The rank's place along `axes`; or, if not `along`, along the other axes of the same layout.
  int place(Axes axes, bool along) const;
};

// The grid of a run today: ep is the one axis to choose, all others but dp and edp are 1. Throws UserError, which shows
// the arithmetic, where ep does not divide the world or the experts. `where` is the key.
RankGrid make_rank_grid(int world, int rank, int expert_parallel, int64_t experts, const std::string& where);

}  // namespace mixtune
