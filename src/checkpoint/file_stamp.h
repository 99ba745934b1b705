// Tells that a file was changed or replaced between two looks.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>

namespace mixtune {

// No device and inode: some network file systems number them anew.
struct FileStamp {
  int64_t size = -1;                     // -1: there is no such file
  int64_t seconds = 0, nanoseconds = 0;  // of the last change

  bool operator==(const FileStamp&) const = default;
};

inline FileStamp file_stamp(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) return {};
  return {status.st_size, status.st_mtim.tv_sec, status.st_mtim.tv_nsec};
}

}  // namespace mixtune
