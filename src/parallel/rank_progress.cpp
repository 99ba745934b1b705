#include "parallel/rank_progress.h"

#include <optional>

#include "parallel/wrapped_communicator.h"

namespace mixtune {

namespace {

class Watched {
 public:
  Watched(RankProgress& progress, const char* what, Progress when_returned)
      : progress_(progress), leaves_(when_returned == Progress::kDone) {
    progress_.enter(what);
  }
  ~Watched() {
    if (leaves_) progress_.leave();
  }
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;

 private:
  RankProgress& progress_;
  bool leaves_;
};

class Unwatched final : public RankProgress {
 public:
  void set_step(int64_t) override {}
  void set_activity(const char*) override {}
  void advance() override {}
  void enter(const char*) override {}
  void leave() override {}
};

}  // namespace

RankProgress& unwatched() {
  static Unwatched progress;
  return progress;
}

std::unique_ptr<Communicator> with_progress(std::unique_ptr<Communicator> communicator, RankProgress& progress,
                                            Progress when_returned) {
  return wrap_communicator(std::move(communicator), [&progress, when_returned](Ctx*, const char* what, int64_t bytes) {
    return bytes == kWait ? std::nullopt : std::optional<Watched>(std::in_place, progress, what, when_returned);
  });
}

}  // namespace mixtune
