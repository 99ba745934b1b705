// The lane: a GPU's second stream, for what moves between ranks while the ctx's own work goes on. On other devices
// nothing runs side by side: work put in the lane is done at once, and there is nothing to wait for.
#pragma once

#include "tensor/ctx.h"

namespace mixtune {

// For a scope, puts the ctx's work into the lane, behind all that stream and lane hold when the scope begins. The
// memory it uses must stay as it is until the ctx has waited for it.
class InLane {
 public:
  explicit InLane(Ctx& ctx);
  ~InLane();
  InLane(const InLane&) = delete;
  InLane& operator=(const InLane&) = delete;

 private:
  Ctx& ctx_;
  bool entered_;  // false: the ctx was in the lane before
};

bool in_lane(const Ctx& ctx);

// What the lane holds at some time; at first nothing.
struct LaneMark {
  int64_t place = 0;
};
LaneMark mark_lane(Ctx& ctx);
// Makes the ctx's later work wait for what the mark stands for.
void wait_for_lane(Ctx& ctx, LaneMark mark);

}  // namespace mixtune
