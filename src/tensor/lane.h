// A GPU's lane: a second stream, for what moves between ranks while the ctx's own work goes on. Elsewhere nothing runs
// beside anything: what is put in the lane is done at once, and there is nothing to wait for.
#pragma once

#include "tensor/ctx.h"

namespace mixtune {

// For a scope, what is put on the ctx's stream goes into the lane, behind all that stream and lane hold at its begin.
// The memory that it uses stays as it is until the ctx has waited for it.
class InLane {
 public:
  explicit InLane(Ctx& ctx);
  ~InLane();
  InLane(const InLane&) = delete;
  InLane& operator=(const InLane&) = delete;

 private:
  Ctx& ctx_;
  bool entered_;  // not where the ctx was in the lane before
};

bool in_lane(const Ctx& ctx);

// All that the lane holds at some time; at first nothing.
struct LaneMark {
  int64_t place = 0;
};
LaneMark mark_lane(Ctx& ctx);
// The ctx's later work waits for that.
void wait_for_lane(Ctx& ctx, LaneMark mark);

}  // namespace mixtune
