#include "data/indexed_files.h"

#include <filesystem>

namespace mixtune {

std::string indexed_prefix(std::string_view path) {
  if (path.ends_with(".bin") || path.ends_with(".idx")) path.remove_suffix(4);
  return std::string(path);
}

std::optional<std::string> find_indexed(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const std::string prefix = indexed_prefix(path);
  if (prefix == path && fs::is_regular_file(path, ignored)) return {};
  const IndexedPaths paths(prefix);
  if (!fs::is_regular_file(paths.idx, ignored) && !fs::is_regular_file(paths.bin, ignored)) return {};
  return prefix;
}

}  // namespace mixtune
