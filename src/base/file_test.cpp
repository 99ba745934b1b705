#include "base/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/temp_folder.h"

namespace mixtune {
namespace {

class FileTest : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return folder_ + "/" + name; }

  std::string write(const std::string& name, std::string_view content) const {
    std::ofstream(path(name), std::ios::binary) << content;
    return path(name);
  }

  // That neither reader takes `path`, for the same reason.
  void expect_refused(const std::string& path, const std::string& what) {
    EXPECT_EQ(error([&] { MappedFile{path}; }), path + ": " + what + "; check the path");
    EXPECT_EQ(error([&] { read_small_file(path, 10, "give another"); }), path + ": " + what + "; give another");
  }

  template <class Action>
  static std::string error(Action action) {
    try {
      action();
    } catch (const UserError& refused) {
      return refused.what();
    }
    return "";
  }

  const TempFolder temporary_;
  const std::string folder_ = temporary_.path();
};

TEST_F(FileTest, ReadsRegularFiles) {
  using namespace std::string_literals;
  for (const std::string& content : {""s, "a"s, "a\0b\n"s}) {
    EXPECT_EQ(MappedFile(write("file", content)).bytes(), content);
    EXPECT_EQ(read_small_file(path("file"), 4, ""), content);
  }
  std::filesystem::create_symlink("file", path("link"));
  EXPECT_EQ(read_small_file(path("link"), 4, ""), "a\0b\n"s);
}

TEST_F(FileTest, RefusesWhatIsNotARegularFile) {
  expect_refused(path("none"), "cannot be opened: No such file or directory");
  expect_refused(folder_, "is a folder, not a file");
  expect_refused("/dev/zero", "is not a regular file");
  ASSERT_EQ(mkfifo(path("pipe").c_str(), 0600), 0);
  expect_refused(path("pipe"), "is not a regular file");  // and does not wait for a writer
}

TEST_F(FileTest, SmallFilesAreSmall) {
  const std::string file = write("file", std::string(1 << 20, 'x'));
  EXPECT_EQ(read_small_file(file, 1 << 20, "").size(), 1u << 20);
  std::ofstream(file, std::ios::app) << 'x';
  EXPECT_EQ(error([&] { read_small_file(file, 1 << 20, "give another"); }),
            file + ": is larger than 1 MiB; give another");
  EXPECT_EQ(error([&] { read_small_file(file, 256, "give another"); }), file + ": is larger than 256 B; give another");
}

TEST_F(FileTest, ReleasedPagesAreReadAgain) {
  std::string content;
  for (int i = 0; i < 100000; ++i) content += std::to_string(i);
  const MappedFile file(write("file", content));
  EXPECT_EQ(file.bytes(), content);
  file.release(std::as_bytes(std::span(file.bytes())));
  EXPECT_EQ(file.bytes(), content);
  file.release(std::as_bytes(std::span(file.bytes().substr(70000, 1))));
  EXPECT_EQ(file.bytes(), content);
}

TEST_F(FileTest, MappingsMove) {
  MappedFile file(write("file", "text"));
  const MappedFile moved(std::move(file));
  EXPECT_EQ(moved.bytes(), "text");
  EXPECT_EQ(moved.path(), path("file"));
}

}  // namespace
}  // namespace mixtune
