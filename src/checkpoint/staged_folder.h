// Folders that appear whole or not at all, and disappear the same way.
#pragma once

#include <string>
#include <string_view>

namespace mixtune {

// A folder that is filled under a temporary name beside its final one, `.NAME.tmp-PID`. A kill at any instant leaves
// at most the temporary one, which the next StagedFolder of the same name removes.
class StagedFolder {
 public:
  // Throws UserError if `final_path` exists.
  explicit StagedFolder(const std::string& final_path);
  ~StagedFolder();  // removes the folder unless it was committed
  StagedFolder(const StagedFolder&) = delete;
  StagedFolder& operator=(const StagedFolder&) = delete;

  const std::string& path() const { return path_; }  // to write into
  // Gives the folder its name, once everything in it is on the disk.
  void commit();

 private:
  std::string final_path_, path_;
  bool committed_ = false;
};

// Removes a file or folder. A kill in between leaves no half of it under its own name.
void remove_whole(const std::string& path);

// Removes what killed processes left in `folder` under temporary names for names that start with `prefix`.
void remove_stale(const std::string& folder, std::string_view prefix);

// `path` without the slashes at its end.
std::string without_trailing_slash(std::string path);

}  // namespace mixtune
