// A package of tests (scripts/package_tests) runs wherever it is put, and from any folder.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/temp_folder.h"
#include "base/test_paths.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;

int run(const std::string& command) {
  return std::system((command + " > /dev/null 2>&1").c_str());
}

TEST(PackageOfTests, RunsFromAnyFolder) {
  if (!fs::exists(test_root() / "test_programs.txt")) GTEST_SKIP() << "this is a package itself";
  const TempFolder temporary;
  const fs::path made = temporary.path() / "made", package = temporary.path() / "moved";
  ASSERT_EQ(run(fmt::format("{} {} {} config_test fault_test faulty_rank", source_path("scripts/package_tests"),
                            test_root().string(), made.string())),
            0);
  fs::rename(made, package);
  const auto run_from_root = [&](const char* program, const char* tests) {
    return run(fmt::format("cd / && {}/tests/{} --gtest_filter={}", package.string(), program, tests));
  };
  EXPECT_EQ(run_from_root("fault_test", "Faults.NoneIsNoFailure"), 0) << "starts a program beside it";
  EXPECT_EQ(run_from_root("config_test", "Docs.*"), 0) << "reads a file of the repository";
  EXPECT_EQ(run(fmt::format("cd / && {}/bin/mixtune version", package.string())), 0);
  for (const char* needed :
       {"bench/gpu_checks", "bench/curve", "bench/full_size", "bench/qlora_soak", "bench/program_runs.py",
        "scripts/compare_runs", "tests/fixtures/hf/plain", "examples/quickstart/train.yaml"})
    EXPECT_TRUE(fs::exists(package / "source" / needed)) << needed;
}

}  // namespace
}  // namespace mixtune
