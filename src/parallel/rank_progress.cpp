#include "parallel/rank_progress.h"

namespace mixtune {

namespace {

class Watched : public Communicator {
 public:
  Watched(std::unique_ptr<Communicator> inner, RankProgress& progress)
      : Communicator(inner->rank(), inner->size()), inner_(std::move(inner)), progress_(progress) {}

  void exchange(Ctx& ctx, const char* what, std::span<const Message> sends,
                std::span<const Message> receives) override {
    const Inside inside(progress_, what);
    inner_->exchange(ctx, what, sends, receives);
  }
  void all_reduce(Ctx& ctx, const char* what, const Tensor& x) override {
    const Inside inside(progress_, what);
    inner_->all_reduce(ctx, what, x);
  }
  void reduce_scatter(Ctx& ctx, const char* what, const Tensor& x) override {
    const Inside inside(progress_, what);
    inner_->reduce_scatter(ctx, what, x);
  }
  void all_gather(Ctx& ctx, const char* what, const Tensor& x) override {
    const Inside inside(progress_, what);
    inner_->all_gather(ctx, what, x);
  }
  void broadcast(Ctx& ctx, const char* what, const Tensor& x, int root) override {
    const Inside inside(progress_, what);
    inner_->broadcast(ctx, what, x, root);
  }
  std::unique_ptr<Communicator> split(int color) override {
    const Inside inside(progress_, "making of groups");
    return with_progress(inner_->split(color), progress_);
  }

 private:
  class Inside {
   public:
    Inside(RankProgress& progress, const char* what) : progress_(progress) { progress_.enter(what); }
    ~Inside() { progress_.leave(); }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

   private:
    RankProgress& progress_;
  };

  std::unique_ptr<Communicator> inner_;
  RankProgress& progress_;
};

}  // namespace

std::unique_ptr<Communicator> with_progress(std::unique_ptr<Communicator> communicator, RankProgress& progress) {
  if (communicator->size() == 1) return communicator;
  return std::make_unique<Watched>(std::move(communicator), progress);
}

}  // namespace mixtune
