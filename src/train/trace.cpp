#include "train/trace.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/json_value.h"
#include "base/staged.h"

namespace mixtune {

namespace {

int64_t nanoseconds(double milliseconds) {
  return std::llround(milliseconds * 1e6);
}

}  // namespace

// Times are whole nanoseconds here, and each event is cut to the room that the one around it has: viewers drop an event
// that reaches beyond it, as the clock's rounding can make it.
std::string chrome_trace(const std::vector<Profiler::Part>& parts) {
  struct Room {
    int64_t begin, end;
  };
  std::vector<Room> rooms = {{0, std::numeric_limits<int64_t>::max()}};  // left at each depth
  nlohmann::ordered_json events = nlohmann::ordered_json::array();
  for (const Profiler::Part& part : parts) {
    rooms.resize(static_cast<size_t>(part.depth) + 1);
    Room& room = rooms.back();
    const int64_t begin = std::clamp(nanoseconds(part.begin), room.begin, room.end);
    const int64_t end = std::clamp(nanoseconds(part.begin + part.duration), begin, room.end);
    room.begin = end;
    rooms.push_back({begin, end});
    events.push_back({{"name", part.name},
                      {"ph", "X"},
                      {"pid", 0},
                      {"tid", 0},
                      {"ts", static_cast<double>(begin) / 1e3},
                      {"dur", static_cast<double>(end - begin) / 1e3}});
  }
  return nlohmann::ordered_json({{"displayTimeUnit", "ms"}, {"traceEvents", events}}).dump() + "\n";
}

Trace::Trace(Ctx& ctx) : ctx_(ctx), profiler_(ctx) {
  profiler_.start();
  ctx_.profiler = &profiler_;
}

Trace::~Trace() {
  ctx_.profiler = nullptr;
}

void Trace::write(const std::string& path, Existing existing) {
  const std::string trace = chrome_trace(profiler_.collect(ctx_));
  write_whole_file(path, trace, existing);
}

}  // namespace mixtune
