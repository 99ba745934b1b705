// Helpers for the tests of this folder: a folder that goes away, and the committed tokeniser.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/temp_folder.h"
#include "base/test_paths.h"
#include "config/config.h"

namespace mixtune {

inline const std::string kTokenizerFixtures = source_path("tests/fixtures/tokenizer");

class TestFolder {
 public:
  std::string path(std::string_view name = "") const { return folder_ / name; }

  // Writes a file and returns its path.
  std::string write(std::string_view name, std::string_view content) const {
    std::ofstream(path(name), std::ios::binary) << content;
    return path(name);
  }

  static std::string read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  TempFolder folder_;
};

// `files` as one data set.
inline std::vector<Dataset> as_dataset(std::vector<std::string> files) {
  return {{.path = std::move(files)}};
}

// The message of the UserError that `action` throws, "" where it throws none.
template <class Action>
std::string user_error(Action action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kUserError) << error.what();
    EXPECT_EQ(std::string_view(error.what()).find('\n'), std::string_view::npos) << "more than a line";
    return error.what();
  }
  return "";
}

}  // namespace mixtune
