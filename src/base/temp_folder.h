// TempFolder: a folder that a test, or a process, has for itself.
#pragma once

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/error.h"

namespace mixtune {

class TempFolder {
 public:
  // Makes mixtune-PURPOSE-RANDOM, which goes with all that is in it. Throws Error.
  explicit TempFolder(std::string_view purpose = "test") {
    std::string name = std::filesystem::temp_directory_path() / ("mixtune-" + std::string(purpose) + "-XXXXXX");
    if (mkdtemp(name.data()) == nullptr)
      throw Error(printable_path(name), std::string("cannot be made: ") + std::strerror(errno),
                  "set TMPDIR to a folder that can be written");
    path_ = name;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::string operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace mixtune
