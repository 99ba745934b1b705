#include "base/library.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <link.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/file.h"

namespace mixtune {

namespace fs = std::filesystem;

Library::Library(const std::string& path)
    : name_(path), handle_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)) {
  if (handle_ == nullptr)
    throw Error(printable_path(path), fmt::format("cannot be loaded: {}", printable(dlerror(), 400)),
                "install it anew, or name another folder in MIXTUNE_LIBRARY_PATH");
}

Library::~Library() {
  if (handle_ != nullptr) dlclose(handle_);
}

Library::Library(Library&& other) noexcept
    : name_(std::move(other.name_)), handle_(std::exchange(other.handle_, nullptr)) {}

void* Library::address(const char* name) const {
  void* symbol = dlsym(handle_, name);
  if (symbol == nullptr)
    throw Error(printable_path(path()), fmt::format("has no function {}", name),
                "install a newer version, or name its folder in MIXTUNE_LIBRARY_PATH");
  return symbol;
}

std::string Library::path() const {
  const link_map* map = nullptr;
  return dlinfo(handle_, RTLD_DI_LINKMAP, &map) == 0 && map->l_name[0] != '\0' ? map->l_name : name_;
}

namespace {

using Folders = std::vector<fs::path>;

struct Names {
  const char* library;
  const char* file;
};

constexpr Names names_of(CudaLibrary library) {
  switch (library) {
    case CudaLibrary::kCublasLt:
      return {"cuBLASLt", "libcublasLt.so.13"};
    case CudaLibrary::kCudnn:
      return {"cuDNN", "libcudnn.so.9"};
    case CudaLibrary::kNccl:
      break;
  }
  return {"NCCL", "libnccl.so.2"};
}

// The libraries that cuDNN opens by name when it is used, each after those it needs. The loader alone could take those
// of another version from a folder in LD_LIBRARY_PATH.
constexpr std::array kCudnnParts = {"libcudnn_graph.so.9", "libcudnn_ops.so.9", "libcudnn_heuristic.so.9",
                                    "libcudnn_engines_precompiled.so.9", "libcudnn_engines_runtime_compiled.so.9"};

// The folders of wheels, below site-packages.
constexpr std::array kWheelFolders = {"nvidia/cu13/lib", "nvidia/cublas/lib", "nvidia/cudnn/lib", "nvidia/nccl/lib"};
constexpr std::array kToolkitFolders = {"lib64", "lib", "targets/x86_64-linux/lib"};

std::vector<std::string> split(std::string_view list) {
  std::vector<std::string> parts;
  while (!list.empty()) {
    const size_t end = std::min(list.find(':'), list.size());
    if (end > 0) parts.emplace_back(list.substr(0, end));
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return parts;
}

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// Adds the wheels of a Python whose bin/python3 lies in `prefix`.
void add_wheels(const fs::path& prefix, Folders& folders) {
  for (const char* lib : {"lib", "lib64", "local/lib"}) {
    std::error_code error;
    Folders pythons;
    for (fs::directory_iterator entry(prefix / lib, error), end; !error && entry != end; entry.increment(error))
      if (entry->path().filename().string().starts_with("python3")) pythons.push_back(entry->path());
    std::sort(pythons.begin(), pythons.end());
    for (const fs::path& python : pythons)
      for (const char* packages : {"site-packages", "dist-packages"})
        for (const char* folder : kWheelFolders) folders.push_back(python / packages / folder);
  }
}

// A virtual environment's python3 is a link to the one it was made from: both may have the wheels.
void add_wheels_of_path(const std::string& program_path, Folders& folders) {
  for (const fs::path folder : split(program_path)) {
    const fs::path python = folder / "python3";
    if (!is_there(python)) continue;
    add_wheels(python.parent_path().parent_path(), folders);
    std::error_code error;
    const fs::path real = fs::canonical(python, error);
    if (!error && real != python) add_wheels(real.parent_path().parent_path(), folders);
    return;
  }
}

Folders folders_of(const LibrarySearch& search) {
  Folders folders;
  if (!search.virtual_env.empty()) add_wheels(search.virtual_env, folders);
  add_wheels_of_path(search.program_path, folders);
  for (const fs::path root : {search.cuda_home, search.toolkit})
    if (!root.empty())
      for (const char* folder : kToolkitFolders) folders.push_back(root / folder);
  for (const std::string& folder : split(search.system_libraries)) folders.emplace_back(folder);
  return folders;
}

std::vector<int> numbers(std::string_view version) {
  std::vector<int> parts;
  for (const char *at = version.data(), *end = at + version.size(); at < end;) {
    int part = 0;
    const auto [next, error] = std::from_chars(at, end, part);
    if (error != std::errc()) break;
    parts.push_back(part);
    at = next + (next < end && *next == '.');
  }
  return parts;
}

// The version in a file's name: in a system's package libcudnn.so.9 is a link to libcudnn.so.9.14.0.
std::string version_in_name(const fs::path& file) {
  std::error_code error;
  const std::string name = fs::canonical(file, error).filename().string();
  const size_t at = name.find(".so.");
  if (error || at == std::string::npos) return "";
  const std::string version = name.substr(at + 4);
  return numbers(version).size() >= 3 ? version : "";
}

// The version in a header: cuDNN's wheels have no such link, but bring that.
std::string version_in_header(const fs::path& file) {
  const fs::path header = file.parent_path().parent_path() / "include" / "cudnn_version.h";
  if (!is_there(header)) return "";
  std::string version;
  try {
    const std::string text = read_small_file(header.string(), 1 << 20, "");
    for (const std::string_view name : {"CUDNN_MAJOR ", "CUDNN_MINOR ", "CUDNN_PATCHLEVEL "}) {
      const size_t at = text.find(fmt::format("#define {}", name));
      if (at == std::string::npos) return "";
      const auto number = numbers(std::string_view(text).substr(at + 8 + name.size(), 8));
      if (number.empty()) return "";
      version += fmt::format("{}{}", version.empty() ? "" : ".", number[0]);
    }
  } catch (const Error&) {
    return "";
  }
  return version;
}

std::optional<FoundLibrary> look_in(const fs::path& folder, CudaLibrary library) {
  const fs::path file = folder / names_of(library).file;
  if (!is_there(file)) return {};
  std::string version = version_in_name(file);
  if (version.empty() && library == CudaLibrary::kCudnn) version = version_in_header(file);
  return FoundLibrary{file.string(), version};
}

// Asks the loader for a name, which it knows by its cache.
std::optional<FoundLibrary> ask_loader(CudaLibrary library) {
  try {
    const std::string path = Library(names_of(library).file).path();
    return FoundLibrary{path, version_in_name(path)};
  } catch (const Error&) {
    return {};
  }
}

}  // namespace

std::string_view library_name(CudaLibrary library) {
  return names_of(library).library;
}

LibrarySearch LibrarySearch::of_process() {
  const auto variable = [](const char* name) -> std::string {
    const char* value = std::getenv(name);
    return value != nullptr ? value : "";
  };
  return {.library_path = variable("MIXTUNE_LIBRARY_PATH"),
          .virtual_env = variable("VIRTUAL_ENV"),
          .program_path = variable("PATH"),
          .cuda_home = variable("CUDA_HOME"),
          .toolkit = "/usr/local/cuda",
          .system_libraries = variable("LD_LIBRARY_PATH") + ":/usr/lib/x86_64-linux-gnu:/usr/lib64:/usr/local/lib",
          .loader = true};
}

std::optional<FoundLibrary> find_library(CudaLibrary library, const LibrarySearch& search) {
  for (const std::string& folder : split(search.library_path))
    if (auto named = look_in(folder, library)) return named;
  std::optional<FoundLibrary> best;
  for (const fs::path& folder : folders_of(search)) {
    auto found = look_in(folder, library);
    if (!found) continue;
    if (library != CudaLibrary::kCudnn) return found;
    if (!best || numbers(found->version) > numbers(best->version)) best = std::move(found);
  }
  return best || !search.loader ? best : ask_loader(library);
}

Library open_library(CudaLibrary library) {
  const auto found = find_library(library);
  if (!found)
    throw Error(library_name(library), fmt::format("there is no {} on this machine", names_of(library).file),
                "install it (PyTorch's wheels for CUDA 13 bring it), or name its folder in MIXTUNE_LIBRARY_PATH");
  if (library == CudaLibrary::kCudnn) {
    const fs::path folder = fs::path(found->path).parent_path();
    for (const char* part : kCudnnParts)
      if (is_there(folder / part)) Library{folder / part};  // the library stays in memory
  }
  return Library(found->path);
}

std::string library_version(CudaLibrary library, const Library& opened) {
  int number = 0;
  if (library == CudaLibrary::kNccl) {
    int (*version)(int*);
    opened.load(version, "ncclGetVersion");
    version(&number);
  } else {
    size_t (*version)();
    opened.load(version, library == CudaLibrary::kCudnn ? "cudnnGetVersion" : "cublasLtGetVersion");
    number = static_cast<int>(version());
  }
  return fmt::format("{}.{}.{}", number / 10000, number / 100 % 100, number % 100);
}

}  // namespace mixtune
