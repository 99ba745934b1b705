#include "parallel/rank_progress.h"

#include "parallel/wrapped_communicator.h"

namespace mixtune {

namespace {

class Inside {
 public:
  Inside(RankProgress& progress, const char* what) : progress_(progress) { progress_.enter(what); }
  ~Inside() { progress_.leave(); }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  RankProgress& progress_;
};

}  // namespace

std::unique_ptr<Communicator> with_progress(std::unique_ptr<Communicator> communicator, RankProgress& progress) {
  return wrap_communicator(std::move(communicator),
                           [&progress](const char* what, int64_t) { return Inside(progress, what); });
}

}  // namespace mixtune
