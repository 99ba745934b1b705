#include "tensor/profiler.h"

#include "tensor/nvtx.h"

namespace mixtune {

void Profiler::start() {
  clock_->reset();
  marks_.clear();
  open_.clear();
  clock_->stamp();
}

void Profiler::begin(const char* name) {
  open_.push_back(marks_.size());
  marks_.push_back({name, static_cast<int>(open_.size()) - 1, clock_->stamp(), -1});
}

void Profiler::end() {
  marks_[open_.back()].end = clock_->stamp();
  open_.pop_back();
}

std::vector<Profiler::Part> Profiler::collect(Ctx& ctx) {
  MT_CHECK(open_.empty());
  wait(ctx);
  std::vector<Part> parts;
  for (const Mark& mark : marks_)
    parts.push_back(
        {mark.name, mark.depth, clock_->milliseconds(0, mark.begin), clock_->milliseconds(mark.begin, mark.end)});
  return parts;
}

Range::Range(Ctx& ctx, const char* name) : ctx_(ctx) {
  if (ctx_.like_gpu()) cuda::push_range(name);
  if (ctx_.profiler) ctx_.profiler->begin(name);
}

Range::~Range() {
  if (ctx_.profiler) ctx_.profiler->end();
  if (ctx_.like_gpu()) cuda::pop_range();
}

namespace {

class HostClock : public StampClock {
 public:
  int stamp() override {
    stamps_.push_back(std::chrono::steady_clock::now());
    return static_cast<int>(stamps_.size()) - 1;
  }
  double milliseconds(int from, int to) override {
    return std::chrono::duration<double, std::milli>(stamps_[to] - stamps_[from]).count();
  }
  bool is_past(int) override { return true; }
  void reset() override { stamps_.clear(); }

 private:
  std::vector<std::chrono::steady_clock::time_point> stamps_;
};

}  // namespace

std::unique_ptr<StampClock> make_stamp_clock(Ctx& ctx) {
  if (ctx.like_gpu()) return cuda::make_stamp_clock(*ctx.gpu);
  return std::make_unique<HostClock>();
}

}  // namespace mixtune
