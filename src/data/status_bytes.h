// Tests ask here for this process's memory.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>

namespace mixtune {

// A field of /proc/self/status, in bytes; -1 where there is none of this name.
inline int64_t status_bytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string name; status >> name;) {
    int64_t kib = 0;
    if (name == field + ":" && status >> kib) return kib << 10;
    std::getline(status, name);
  }
  return -1;
}

}  // namespace mixtune
