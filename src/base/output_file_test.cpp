#include "base/output_file.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "base/temp_folder.h"

namespace mixtune {
namespace {

// What check_output_file says of `path`; "" where it can be made.
std::string refusal(const std::string& path, bool overwrite) {
  try {
    check_output_file(path, overwrite);
    return "";
  } catch (const UserError& error) {
    return error.what();
  }
}

TEST(CheckOutputFile, RefusesWhatCannotBeMade) {
  const TempFolder folder;
  const auto says = [](const std::string& message, const char* what) {
    return message.find(what) != message.npos;
  };
  EXPECT_PRED2(says, refusal(folder.path(), true), "is a folder");
  EXPECT_PRED2(says, refusal("/dev/null", true), "is not a regular file");
  EXPECT_PRED2(says, refusal(folder / "none/out.jsonl", true), "none: is not a folder");
  const std::string path = folder / "out.jsonl";
  EXPECT_EQ(refusal(path, false), "");
  std::filesystem::create_symlink("elsewhere", path);
  EXPECT_PRED2(says, refusal(path, true), "is a link");
  std::filesystem::remove(path);
  write_file(path, "precious");
  EXPECT_PRED2(says, refusal(path, false), "exists already");
  EXPECT_EQ(refusal(path, true), "");
}

}  // namespace
}  // namespace mixtune
