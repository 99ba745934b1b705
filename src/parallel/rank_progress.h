// RankProgress: where a rank is in its work, told to whoever watches the job.
#pragma once

#include <cstdint>
#include <memory>

#include "parallel/communicator.h"

namespace mixtune {

class RankProgress {
 public:
  virtual ~RankProgress() = default;

  virtual void set_step(int64_t step) = 0;
  virtual void set_activity(const char* activity) = 0;  // "forward"
  // A piece of long work is done: this rank is not to be taken for one that hangs, however long the others wait.
  virtual void advance() = 0;
  // Around everything in which this rank may wait for others.
  virtual void enter(const char* collective) = 0;
  virtual void leave() = 0;
};

// Of a rank that nobody watches.
RankProgress& unwatched();

// `communicator`, and what is split from it, with enter and leave around every operation. A group of one has none.
// Operations of a GPU go on when their call has returned: of those there is only the enter, and a rank counts as inside
// until it enters the next one.
enum class Progress { kDone, kGoesOn };  // when a call has returned
std::unique_ptr<Communicator> with_progress(std::unique_ptr<Communicator> communicator, RankProgress& progress,
                                            Progress when_returned);

}  // namespace mixtune
