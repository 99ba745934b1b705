// RankProgress: tells whoever watches the job where a rank is in its work.
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
  // A piece of long work is done: this rank does not hang, however long the others wait for it.
  virtual void advance() = 0;
  // Enclose everything in which this rank may wait for others.
  virtual void enter(const char* collective) = 0;
  virtual void leave() = 0;
};

// The progress of a rank that nobody watches.
RankProgress& unwatched();

// Wraps `communicator`, and what is split from it: enter and leave enclose every operation. A group of one has none. A
// GPU's operations go on when their call has returned: for those there is only the enter, and a rank counts as inside
// until it enters the next one.
enum class Progress { kDone, kGoesOn };  // when a call has returned
std::unique_ptr<Communicator> with_progress(std::unique_ptr<Communicator> communicator, RankProgress& progress,
                                            Progress when_returned);

}  // namespace mixtune
