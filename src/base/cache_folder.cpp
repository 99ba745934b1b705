#include "base/cache_folder.h"

#include <cstdlib>

namespace mixtune {

std::string cache_folder() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache && *cache) return std::string(cache) + "/mixtune";
  if (const char* home = std::getenv("HOME"); home && *home) return std::string(home) + "/.cache/mixtune";
  return "";
}

}  // namespace mixtune
