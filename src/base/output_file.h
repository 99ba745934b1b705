// OutputFile: writes files, and knows when they are on the disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/file.h"

namespace mixtune {

// A new file, written in any order until no byte is missing. Its user puts it in a folder that is removed on failure.
// Writes go to the disk at once: a write takes as long as the disk does, and finish() little.
class OutputFile {
 public:
  explicit OutputFile(const std::string& path);

  const std::string& path() const { return path_; }
  // Appends to all that is written.
  void write(std::span<const std::byte> bytes) { write_at(end_, bytes); }
  void write_at(int64_t place, std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  // Returns when the content is on the disk.
  void finish();

 private:
  void push();

  std::string path_;
  Fd fd_;
  int64_t end_ = 0, unpushed_ = 0;  // bytes
};

void write_file(const std::string& path, std::string_view content);

// Throws UserError where a user's output file `path` could not be made: it exists (unless `overwrite`, and it is a
// file), or its folder is missing or not writable.
void check_output_file(const std::string& path, bool overwrite);

// Returns when the folder's entries (new files, renames) are on the disk.
void sync_folder(const std::string& path);

// The bytes that can still be written on a folder's disk; the largest number where it does not say.
uint64_t free_space(const std::string& folder);

// Throws Error where the disk of `path`, which is to be made, has less room.
void check_space(const std::string& path, uint64_t bytes);

// The folder that holds `path`, never "".
std::string parent_folder(const std::string& path);

}  // namespace mixtune
