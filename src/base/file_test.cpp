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

  // Expects that neither reader takes `path`, for the same reason.
  void expect_refused(const std::string& path, const std::string& what) {
    EXPECT_EQ(error([&] { InputFile{path}; }), path + ": " + what + "; check the path");
    EXPECT_EQ(error([&] { read_small_file(path, 10, "give another"); }), path + ": " + what + "; give another");
  }

  template <class Action>
  static std::string error(Action action) {
    try {
      action();
    } catch (const Error& refused) {
      return refused.what();
    }
    return "";
  }

  static std::string read_all(const InputFile& file) { return file.read(0, file.size()); }

  const TempFolder temporary_;
  const std::string folder_ = temporary_.path();
};

TEST_F(FileTest, ReadsRegularFiles) {
  using namespace std::string_literals;
  for (const std::string& content : {""s, "a"s, "a\0b\n"s}) {
    EXPECT_EQ(read_all(InputFile(write("file", content))), content);
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

TEST_F(FileTest, AnyPartOfAFile) {
  const InputFile file(write("file", "0123456789"));
  EXPECT_EQ(file.size(), 10u);
  EXPECT_EQ(file.read(0, 0), "");
  EXPECT_EQ(file.read(10, 0), "");
  EXPECT_EQ(file.read(3, 4), "3456");
  EXPECT_EQ(file.read(9, 1), "9");
}

TEST_F(FileTest, FilesMove) {
  InputFile file(write("file", "text"));
  const InputFile moved(std::move(file));
  EXPECT_EQ(read_all(moved), "text");
  EXPECT_EQ(moved.path(), path("file"));
}

TEST_F(FileTest, AFileThatIsReplacedOrRemovedIsStillTheOneThatWasOpened) {
  const InputFile file(write("file", "text"));
  std::filesystem::rename(write("other", "quite another"), path("file"));
  EXPECT_EQ(read_all(file), "text");
  file.check_unchanged();
  std::filesystem::remove(path("file"));
  EXPECT_EQ(read_all(file), "text");
  file.check_unchanged();
}

TEST_F(FileTest, AFileThatIsCutOrWrittenToIsAnError) {
  const InputFile file(write("file", std::string(10'000, 'x')));
  std::filesystem::resize_file(path("file"), 5'000);
  EXPECT_EQ(file.read(0, 5'000).size(), 5'000u);
  EXPECT_EQ(error([&] { read_all(file); }), path("file") +
                                                ": changed while it was read: it ends at byte 5000 of 10000; start "
                                                "again, and leave it alone while it is read");
  EXPECT_EQ(error([&] { file.check_unchanged(); }).find(path("file") + ": changed while it was read; "), 0u);
  const InputFile again(path("file"));
  std::ofstream(path("file"), std::ios::app) << "more";
  EXPECT_NE(error([&] { again.check_unchanged(); }), "");
}

}  // namespace
}  // namespace mixtune
