#include "base/contained.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/temp_folder.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;

class Contained : public testing::Test {
 protected:
  Contained() { fs::create_directories(model_); }

  void write(const fs::path& path) const {
    fs::create_directories(path.parent_path());
    std::ofstream(path) << "text";
  }
  void link(const fs::path& target) const {
    fs::remove(fs::path(model_) / "link");
    fs::create_symlink(target, fs::path(model_) / "link");
  }

  const TempFolder folder_;
  const std::string model_ = folder_ / "model";
};

TEST_F(Contained, FilesAndLinksWithinTheFolderStay) {
  write(folder_ / "model/sub/file");
  write(folder_ / "model/plain");
  for (const char* target : {"plain", "sub/file", "../model/plain", "./sub/../plain", "nothing", "/nowhere"}) {
    link(target);
    EXPECT_FALSE(leads_out(model_, "link")) << target;
    EXPECT_EQ(path_within(model_, "link"), model_ + "/link");
  }
  for (const char* name : {"plain", "none"}) EXPECT_FALSE(leads_out(model_, name)) << name;
  fs::create_directory_symlink(model_, folder_ / "elsewhere");  // the user's own name for the folder
  link("plain");
  EXPECT_FALSE(leads_out(folder_ / "elsewhere", "link"));
}

TEST_F(Contained, LinksToOtherPlacesLeadOut) {
  write(folder_ / "secret");
  write(folder_ / "models/file");  // a folder whose name only begins as the model's
  fs::create_symlink("../secret", folder_ / "model/first");
  for (const std::string& target : {std::string("../secret"), folder_ / "secret", std::string("first"),
                                    std::string("../models/file"), std::string("/proc/self/environ")}) {
    link(target);
    EXPECT_TRUE(leads_out(model_, "link")) << target;
    try {
      path_within(model_, "link");
      FAIL() << target;
    } catch (const UserError& error) {
      EXPECT_EQ(std::string(error.what()), model_ +
                                               "/link: is a link that leads out of its folder; put the file itself "
                                               "there, by a copy or a hard link (ln)");
    }
  }
}

TEST_F(Contained, AConfigJsonIsBoundedAndOfItsFolder) {
  const std::string config = model_ + "/config.json";
  write(config);
  EXPECT_EQ(read_config_json(model_), "text");
  fs::resize_file(config, (1 << 20) + 1);
  EXPECT_THROW(read_config_json(model_), UserError);
  fs::remove(config);
  write(folder_ / "secret");
  fs::create_symlink("../secret", config);
  EXPECT_THROW(read_config_json(model_), UserError);
}

TEST_F(Contained, RegularFilesAreListedAndNothingElse) {
  for (const char* name : {"b", "a"}) write(fs::path(model_) / name);
  fs::create_directory(model_ + "/folder");
  link("a");
  fs::create_symlink("/nowhere", model_ + "/dangling");
  EXPECT_EQ(regular_files(model_), (std::vector<std::string>{"a", "b", "link"}));
  EXPECT_THROW(regular_files(model_ + "/none"), UserError);
}

TEST_F(Contained, TheHubCachesBlobs) {
  const std::string sha256(64, '7'), sha1(40, 'a');
  for (const std::string& blob : {sha256, sha1}) {
    write(folder_ / ("hub/models--org--name/blobs/" + blob));
    link("../hub/models--org--name/blobs/" + blob);
    EXPECT_FALSE(leads_out(model_, "link")) << blob;
  }
  for (const std::string& other : {std::string("models--org--name/blobs/token"), "models--org--name/refs/" + sha1,
                                   "blobs/" + sha1, "mine/blobs/" + sha1, "models--org--name/blobs/" + sha1 + "0"}) {
    write(folder_ / ("hub/" + other));
    link("../hub/" + other);
    EXPECT_TRUE(leads_out(model_, "link")) << other;
  }
}

}  // namespace
}  // namespace mixtune
