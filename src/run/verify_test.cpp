#include "run/verify.h"

#include "checkpoint/test_tensors.h"
#include "run/manifest.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;

// A folder as a checkpoint: one file of three tensors, and one that is none.
class Verify : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directory(folder_ / "state");
    write_tensors(weights_, {{{"a", DType::kF32, {3}}, {1, 2, 3}},
                             {{"b", DType::kBF16, {2, 2}}, {4, 5, 6, 7}},
                             {{"none", DType::kF32, {0}}, {}}});
    put(folder_ / "config.json", "{}\n");
    Manifest manifest{.step = 7};
    for (const std::string& name : files_below(folder_.path())) manifest.files[name] = digest_file(folder_ / name);
    put(folder_ / kManifestFile, format_manifest(manifest));
  }

  void flip(const std::string& path, uint64_t byte) {
    std::string content = get(path);
    content.at(byte) = static_cast<char>(content.at(byte) ^ 1);
    put(path, content);
  }

  uint64_t first_byte(std::string_view tensor) const { return SafetensorsFile(weights_).find(tensor)->begin; }

  // Expects these faults, each with its fragments.
  void expect_faults(const std::vector<std::vector<std::string>>& faults) const {
    const Verification found = verify_checkpoint(folder_.path());
    ASSERT_EQ(found.faults.size(), faults.size()) << (found.faults.empty() ? "" : found.faults[0].what());
    for (size_t i = 0; i < faults.size(); ++i)
      for (const std::string& fragment : faults[i])
        EXPECT_NE(std::string(found.faults[i].what()).find(fragment), std::string::npos) << found.faults[i].what();
  }

  TempFolder folder_;
  const std::string weights_ = folder_ / "state/w.safetensors";
};

TEST_F(Verify, WhatIsAsWrittenHasNoFault) {
  const Verification found = verify_checkpoint(folder_.path());
  EXPECT_TRUE(found.faults.empty()) << found.faults[0].what();
  EXPECT_EQ(found.files, 2u);
  EXPECT_EQ(found.bytes, fs::file_size(weights_) + 3);
  std::vector<uint64_t> done;
  verify_checkpoint(folder_.path(), [&](uint64_t bytes, uint64_t all) {
    done.push_back(bytes);
    EXPECT_EQ(all, found.bytes);
  });
  EXPECT_EQ(done, (std::vector<uint64_t>{3, found.bytes}));  // a file each
}

// Bytes of the file, one at a time: a tensor's own is named by the tensor, any other is the header's.
TEST_F(Verify, NamesTheTensorOfEveryByte) {
  const uint64_t size = fs::file_size(weights_), a = first_byte("a"), b = first_byte("b");
  for (uint64_t byte = 0; byte < size; byte += byte < a ? 3 : 1) {
    flip(weights_, byte);
    SCOPED_TRACE(byte);
    const bool in_a = byte >= a && byte < a + 12, in_b = byte >= b && byte < b + 8;
    expect_faults({{"state/w.safetensors: ", in_a   ? "tensor a: its bytes are not"
                                             : in_b ? "tensor b: "
                                                    : "its header"}});
    flip(weights_, byte);
  }
  flip(weights_, a);
  flip(weights_, b + 7);
  expect_faults({{"tensor a: "}, {"tensor b: "}});
}

TEST_F(Verify, NamesAFileThatIsMissingOrOfAnotherSize) {
  put(folder_ / "config.json", "{}\n\n");
  fs::remove(weights_);
  expect_faults({{"config.json: has 4 bytes, 3 were written"}, {"w.safetensors: is missing"}});
}

TEST_F(Verify, AFileWithoutTensorsIsNamedAlone) {
  flip(folder_ / "config.json", 0);
  expect_faults({{"config.json: its bytes are not those that were written (XXH3 "}});
}

// An older version's manifest, which has no tensors.
TEST_F(Verify, WithoutDigestsOfTensorsTheFileIsNamed) {
  Manifest manifest = read_manifest(folder_.path());
  for (auto& [name, file] : manifest.files) file.tensors.clear();
  put(folder_ / kManifestFile, format_manifest(manifest));
  EXPECT_EQ(get(folder_ / kManifestFile).find("\"tensors\""), std::string::npos);
  flip(weights_, first_byte("a"));
  expect_faults({{"w.safetensors: its bytes are not"}});
}

TEST_F(Verify, ALinkThatLeadsOutIsAFault) {
  const TempFolder elsewhere;
  fs::rename(weights_, elsewhere / "w.safetensors");
  fs::create_symlink(elsewhere / "w.safetensors", weights_);
  expect_faults({{"w.safetensors: is a link that leads out"}});
}

TEST_F(Verify, NamesSomeOfManyTensors) {
  std::vector<TestTensor> many;
  for (int i = 0; i < 30; ++i) many.push_back({{fmt::format("t{}", i), DType::kF32, {1}}, {1}});
  fs::remove(weights_);
  write_tensors(weights_, many);
  Manifest manifest{.step = 1};
  manifest.files["state/w.safetensors"] = digest_file(weights_);
  put(folder_ / kManifestFile, format_manifest(manifest));
  for (TestTensor& tensor : many) tensor.values = {2};
  write_tensors(folder_ / "other", many);
  fs::rename(folder_ / "other", weights_);
  const Verification found = verify_checkpoint(folder_.path());
  ASSERT_EQ(found.faults.size(), 21u);
  EXPECT_NE(std::string(found.faults.back().what()).find("10 more tensors"), std::string::npos);
}

TEST_F(Verify, AFolderWithoutDigestsIsRefused) {
  fs::remove(folder_ / kManifestFile);
  expect_user_error([&] { verify_checkpoint(folder_.path()); }, {"has no manifest.json", "save_only_model"});
}

}  // namespace
}  // namespace mixtune
