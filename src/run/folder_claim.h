// FolderClaim: a folder that one process has for itself, whatever machines the others are on.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/file.h"

namespace mixtune {

class FolderClaim {
 public:
  // Makes the folder and its parents, as far as they are missing, and locks `.lock` in it. Throws UserError where that
  // fails, another process has the folder, or a `.lock` is there that no run made. Warns where the file system has no
  // locks.
  explicit FolderClaim(const std::string& path);
  // Gives the folder up. Removes what the claim made, unless it was kept or something else is in it.
  ~FolderClaim();
  FolderClaim(const FolderClaim&) = delete;
  FolderClaim& operator=(const FolderClaim&) = delete;

  void keep();

 private:
  struct Unclaimed {};
  FolderClaim(const std::string& path, Unclaimed) : path_(path) {}
  void make_folders();
  bool open_lock();  // returns whether it is a new file

  std::string path_;
  std::vector<std::string> made_;  // the folders it made, the outermost first
  std::optional<Fd> lock_;         // unlocked by the kernel when it is closed or the process killed
  bool made_lock_ = false, kept_ = false;
};

// Throws UserError where another process has the folder, or a `.lock` is there that no run made. Changes nothing, and
// hinders no process that wants the folder.
void check_unclaimed(const std::string& path);

}  // namespace mixtune
