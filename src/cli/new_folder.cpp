#include "cli/new_folder.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/error.h"
#include "base/output_file.h"

namespace mixtune {

namespace fs = std::filesystem;

void check_new_folder(const std::string& out) {
  if (out.empty()) throw UserError("OUT", "is empty", "name a new folder");
  std::error_code error;
  if (fs::symlink_status(out, error).type() != fs::file_type::not_found)
    throw UserError(printable(out, 200), error ? error.message() : "exists already", "name a new folder");
}

void make_parent_folder(const std::string& out) {
  const std::string parent = parent_folder(out);
  std::error_code error;
  fs::create_directories(parent, error);
  if (error)
    throw UserError(printable(parent, 200), fmt::format("cannot be made ({})", error.message()), "name another place");
}

}  // namespace mixtune
