// Files and folders that appear whole or not at all, and disappear the same way. Nothing is written through a link: all
// that is made is new, and a rename replaces a link, not its target.
#pragma once

#include <string>
#include <string_view>

namespace mixtune {

// A file or folder that its user makes under a temporary name beside its final one, `.NAME.tmp-HOST-PID-RANDOM`, which
// nobody can guess. A kill at any instant leaves at most the temporary one, which the next StagedPath of the same name
// removes (remove_stale says which).
class StagedPath {
 public:
  explicit StagedPath(const std::string& final_path);
  ~StagedPath();  // removes what was made, unless it was committed
  StagedPath(const StagedPath&) = delete;
  StagedPath& operator=(const StagedPath&) = delete;

  const std::string& path() const { return path_; }  // where the user makes it
  // Gives it its name, once everything in it is on the disk. Replaces a file or link of that name.
  void commit();
  // Gives it its name, but throws UserError where something has that name, even if it came since this was made.
  void commit_new();

 private:
  void finish();

  std::string final_path_, path_;
  bool committed_ = false;
};

// A new folder, filled before it has its name. Its mode is from the start what mkdir gives it: the umask, or the
// parent's default rights, say who else may write in it.
class StagedFolder {
 public:
  // Throws UserError if `final_path` exists.
  explicit StagedFolder(const std::string& final_path);

  const std::string& path() const { return staged_.path(); }  // to write into
  // Gives the folder its name, once everything in it is on the disk. Throws UserError where something else has it now.
  void commit();

 private:
  StagedPath staged_;
};

// Writes a file with this content: once it is on the disk, it gets its name. Existing::kRefused throws UserError where
// something has that name.
enum class Existing { kRefused, kReplaced };
void write_whole_file(const std::string& path, std::string_view content, Existing existing);

// Removes a file or folder. A kill or a power cut in between leaves no half of it under its own name.
void remove_whole(const std::string& path);

// Removes what killed processes left in `folder` under temporary names for names that start with `prefix`. Nobody here
// can see whether a process of another host runs: what it made goes once it has not changed for a week.
void remove_stale(const std::string& folder, std::string_view prefix);
bool has_stale(const std::string& folder, std::string_view prefix);  // whether that would remove anything

// Whether something has this name, be it a link that leads nowhere.
bool is_taken(const std::string& path);

// `path` without the slashes at its end.
std::string without_trailing_slash(std::string path);

// This machine's name for temporary names and messages: letters, digits, '.', '_' and '-'.
std::string host_name();

// A new word of hexadecimal digits from the kernel, for names and proofs.
std::string unguessable_word();

}  // namespace mixtune
