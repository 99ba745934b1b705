#include "cli/describe_host.h"

#include <dnnl.h>
#include <fmt/format.h>
#include <sched.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/log.h"

namespace mixtune {

namespace {

// What follows "key ... : " in a file of /proc; "" where it is not there.
std::string value_in(const char* path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const size_t begin = line.find_first_not_of(" \t", line.find(':') + 1);
    return begin == line.npos ? "" : line.substr(begin);
  }
  return "";
}

// "123 kB" of /proc/meminfo.
std::string memory(std::string_view key) {
  const std::string value = value_in("/proc/meminfo", key);
  return value.empty() ? "unknown" : format_bytes(std::strtoull(value.c_str(), nullptr, 10) * 1024);
}

std::string processor() {
  cpu_set_t allowed;
  const bool known = sched_getaffinity(0, sizeof(allowed), &allowed) == 0;
  const unsigned all = std::thread::hardware_concurrency(),
                 ours = known ? static_cast<unsigned>(CPU_COUNT(&allowed)) : all;
  const std::string name = value_in("/proc/cpuinfo", "model name");
  return fmt::format("{}, {} threads{}", name.empty() ? "unknown" : name, ours,
                     ours < all ? fmt::format(" of {}", all) : "");
}

std::string instruction_set() {
  const dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
  const auto has = [&](dnnl_cpu_isa_t least) {
    return (isa & least) == least;
  };
  return has(dnnl_cpu_isa_avx512_core) ? "AVX-512"
         : has(dnnl_cpu_isa_avx2)      ? "AVX2"
         : has(dnnl_cpu_isa_avx)       ? "AVX"
                                       : "SSE4.1";
}

std::string disk() {
  std::error_code error;
  const auto space = std::filesystem::space(".", error);
  return error ? error.message() : fmt::format("{} free in this folder", format_bytes(space.available));
}

}  // namespace

std::vector<std::pair<std::string, std::string>> describe_host() {
  const dnnl_version_t* onednn = dnnl_version();
  return {{"processor", processor()},
          {"oneDNN", fmt::format("{}.{}.{}, with {}", onednn->major, onednn->minor, onednn->patch, instruction_set())},
          {"memory", fmt::format("{} free of {}", memory("MemAvailable"), memory("MemTotal"))},
          {"disk", disk()}};
}

}  // namespace mixtune
