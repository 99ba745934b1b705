// ReadAhead: reads stretches of files by several threads into a ring of buffers, ahead of the thread that uses them.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "checkpoint/uncached_file.h"

namespace mixtune {

struct ReadStretch {
  const UncachedFile* file;
  uint64_t begin, end;  // bytes
};

struct ReadPlan {
  std::vector<ReadStretch> stretches;  // in the order of reading and giving
  std::span<std::byte> memory;         // of the ring; begins at a multiple of UncachedFile::kBlock
  size_t buffer_bytes = 0;             // a multiple of kBlock, with room for the blocks of every stretch
  int threads = 1;
  // Called by the thread that read a stretch, with its index; what it throws reaches the user of the stretch.
  std::function<void(size_t stretch, std::span<const std::byte> bytes)> inspect;
};

class ReadAhead {
 public:
  explicit ReadAhead(ReadPlan plan);
  ~ReadAhead();  // waits for the reads under way
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // The bytes of the next stretch, once they are read. Throws what reading or inspecting them threw.
  std::span<const std::byte> next();
  // Gives back the oldest stretch in use: its buffer may be filled anew.
  void release();

  size_t buffers() const { return slots_.size(); }

 private:
  struct Slot {
    bool full = false;
    std::span<const std::byte> bytes;
    std::exception_ptr error;
  };

  void run();
  Slot fill(size_t stretch) const;
  void stop();

  const ReadPlan plan_;
  std::mutex mutex_;
  std::condition_variable filled_, freed_;
  std::vector<Slot> slots_;                        // stretch i is read into slot i modulo their number
  size_t started_ = 0, given_ = 0, released_ = 0;  // counts of stretches
  bool stopped_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace mixtune
