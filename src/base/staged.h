// Files and folders that appear whole or not at all, and disappear the same way.
#pragma once

#include <string>
#include <string_view>

namespace mixtune {

// A file or folder that its user makes under a temporary name beside its final one, `.NAME.tmp-PID`. A kill at any
// instant leaves at most the temporary one, which the next StagedPath of the same name removes.
class StagedPath {
 public:
  explicit StagedPath(const std::string& final_path);
  ~StagedPath();  // removes what was made, unless it was committed
  StagedPath(const StagedPath&) = delete;
  StagedPath& operator=(const StagedPath&) = delete;

  const std::string& path() const { return path_; }  // to be made there
  // Gives it its name, once everything in it is on the disk; a file of that name is replaced.
  void commit();

 private:
  std::string final_path_, path_;
  bool committed_ = false;
};

// A new folder, filled before it has its name.
class StagedFolder {
 public:
  // Throws UserError if `final_path` exists.
  explicit StagedFolder(const std::string& final_path);

  const std::string& path() const { return staged_.path(); }  // to write into
  // Gives the folder its name, once everything in it is on the disk.
  void commit();

 private:
  StagedPath staged_;
};

// Removes a file or folder. A kill in between leaves no half of it under its own name.
void remove_whole(const std::string& path);

// Removes what killed processes left in `folder` under temporary names for names that start with `prefix`.
void remove_stale(const std::string& folder, std::string_view prefix);

// `path` without the slashes at its end.
std::string without_trailing_slash(std::string path);

}  // namespace mixtune
