#include "tensor/lane.h"

#include "tensor/gpu.h"

namespace mixtune {

InLane::InLane(Ctx& ctx) : ctx_(ctx), entered_(ctx.gpu != nullptr && !ctx.gpu->in_lane()) {
  if (entered_) ctx_.gpu->enter_lane();
}

InLane::~InLane() {
  if (entered_) ctx_.gpu->leave_lane();
}

bool in_lane(const Ctx& ctx) {
  return ctx.gpu != nullptr && ctx.gpu->in_lane();
}

LaneMark mark_lane(Ctx& ctx) {
  return {ctx.gpu == nullptr ? 0 : ctx.gpu->mark_lane()};
}

void wait_for_lane(Ctx& ctx, LaneMark mark) {
  if (ctx.gpu != nullptr) ctx.gpu->wait_for_lane(mark.place);
}

}  // namespace mixtune
