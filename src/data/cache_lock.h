// CacheLock: lets one process at a time make an entry of the cache; others read how far it has come.
#pragma once

#include <optional>
#include <string>

#include "base/file.h"

namespace mixtune {

// An advisory lock of a file, which the kernel releases when its process ends, however it does. Where a file system has
// no locks every process gets it.
class CacheLock {
 public:
  // Takes the lock; none where another process has it. Throws Error where the file cannot be made.
  static std::optional<CacheLock> try_take(const std::string& path);

  // Sets the line that read_lock gives others.
  void say(const std::string& line);

 private:
  explicit CacheLock(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
};

// The line that the lock's holder said last; "" where it has said nothing.
std::string read_lock(const std::string& path);

}  // namespace mixtune
