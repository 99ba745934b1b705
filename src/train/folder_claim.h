// FolderClaim: a folder that one process has for itself, on whatever machine others are.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/file.h"

namespace mixtune {

class FolderClaim {
 public:
  // Makes the folder and its parents, as far as they are missing, and locks `.lock` in it. Throws UserError where that
  // cannot be, another process has the folder, or a `.lock` is there that no run made. Warns where the file system has
  // no locks.
  explicit FolderClaim(const std::string& path);
  // Gives the folder up, and removes what this made, if it was not kept and there is nothing else in it.
  ~FolderClaim();
  FolderClaim(const FolderClaim&) = delete;
  FolderClaim& operator=(const FolderClaim&) = delete;

  void keep() { kept_ = true; }

 private:
  struct Unclaimed {};
  FolderClaim(const std::string& path, Unclaimed) : path_(path) {}
  void make_folders();
  bool open_lock();  // whether it is a new file

  std::string path_;
  std::vector<std::string> made_;  // folders, the outermost first
  std::optional<Fd> lock_;         // the kernel unlocks it when it is closed, or the process killed
  bool made_lock_ = false, kept_ = false;
};

// Throws UserError where another process has the folder, or a `.lock` is there that no run made. Changes nothing, and
// is in no other's way.
void check_unclaimed(const std::string& path);

}  // namespace mixtune
