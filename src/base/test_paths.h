// Where test programs find the repository's files, and the programs built with them: by the test program's own place,
// so that a build's folder and a package of tests (scripts/package) work wherever they are, from any folder.
#pragma once

#include <filesystem>
#include <stdexcept>
#include <string>

namespace mixtune {

// The folder of the build or the package: the nearest one above this program with a `source`. That is the repository,
// or the files of it that tests read.
inline const std::filesystem::path& test_root() {
  static const std::filesystem::path root = [] {
    namespace fs = std::filesystem;
    const fs::path program = fs::read_symlink("/proc/self/exe");
    for (fs::path folder = program.parent_path(); folder != folder.parent_path(); folder = folder.parent_path())
      if (fs::is_directory(folder / "source" / "tests" / "fixtures")) return folder;
    throw std::runtime_error("no folder above " + program.string() + " has a source/tests/fixtures");
  }();
  return root;
}

// The path of a file or folder of the repository.
inline std::string source_path(const std::string& name) {
  return (test_root() / "source" / name).string();
}

// The path of a program: in `bin` or `tests` of a package, or at the top or in `tests` of a build.
inline std::string program_path(const std::string& name) {
  for (const char* folder : {"bin", "tests", "."})
    if (const auto path = test_root() / folder / name; std::filesystem::is_regular_file(path)) return path.string();
  throw std::runtime_error("no program " + name + " in " + test_root().string());
}

}  // namespace mixtune
