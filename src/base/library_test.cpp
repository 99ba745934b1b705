#include "base/library.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/temp_folder.h"

namespace mixtune {
namespace {

TEST(Library, FindsFunctions) {
  const Library libm("libm.so.6");
  double (*cosine)(double) = nullptr;
  libm.load(cosine, "cos");
  EXPECT_EQ(cosine(0), 1);
  EXPECT_TRUE(libm.path().ends_with("/libm.so.6")) << libm.path();
}

TEST(Library, SaysWhatIsMissing) {
  EXPECT_THROW(Library("libmixtune-none.so.1"), Error);
  EXPECT_THROW(Library("/etc/passwd"), Error);
  void (*none)() = nullptr;
  EXPECT_THROW(Library("libm.so.6").load(none, "mixtune_none"), Error);
}

// A machine made of folders; its libraries are empty files.
class FindLibrary : public testing::Test {
 protected:
  FindLibrary() { search_.toolkit = root_ + "/cuda"; }

  std::string path(const std::string& name) const { return root_ + "/" + name; }

  void write(const std::string& name, const std::string& text = "") const {
    std::filesystem::create_directories(std::filesystem::path(path(name)).parent_path());
    std::ofstream(path(name)) << text;
  }

  void link(const std::string& name, const std::string& to) const {
    std::filesystem::create_directories(std::filesystem::path(path(name)).parent_path());
    std::filesystem::create_symlink(to, path(name));
  }

  // Adds cuDNN as a wheel brings it: the file has no version in its name.
  void add_cudnn_wheel(const std::string& packages, const std::string& minor) const {
    write(packages + "/nvidia/cudnn/lib/libcudnn.so.9");
    write(packages + "/nvidia/cudnn/include/cudnn_version.h",
          "#define CUDNN_MAJOR 9\n#define CUDNN_MINOR " + minor + "\n#define CUDNN_PATCHLEVEL 1\n");
  }

  void expect_found(CudaLibrary library, const std::string& file, const std::string& version) const {
    const auto found = find_library(library, search_);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->path, path(file));
    EXPECT_EQ(found->version, version);
  }

  const TempFolder temporary_;
  const std::string root_ = temporary_.path();
  LibrarySearch search_;
};

TEST_F(FindLibrary, NothingIsNoError) {
  search_.program_path = "::/none:" + root_;
  for (const auto library : {CudaLibrary::kCublasLt, CudaLibrary::kCudnn, CudaLibrary::kNccl})
    EXPECT_FALSE(find_library(library, search_));
}

TEST_F(FindLibrary, GoesFromTheNamedFolderToTheSystem) {
  struct Place {
    std::string LibrarySearch::*variable;
    std::string value, file;
  };
  // From the last place to the first, so that each takes over from the one before.
  const Place places[] = {
      {&LibrarySearch::system_libraries, "/none:" + path("usr"), "usr/libcublasLt.so.13"},
      {&LibrarySearch::toolkit, path("cuda"), "cuda/lib64/libcublasLt.so.13"},
      {&LibrarySearch::cuda_home, path("home"), "home/targets/x86_64-linux/lib/libcublasLt.so.13"},
      {&LibrarySearch::program_path, "/none:" + path("py/bin"),
       "py/lib/python3/dist-packages/nvidia/cublas/lib/libcublasLt.so.13"},
      {&LibrarySearch::virtual_env, path("venv"),
       "venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcublasLt.so.13"},
      {&LibrarySearch::library_path, ":/none:" + path("named"), "named/libcublasLt.so.13"},
  };
  write("py/bin/python3");
  for (const Place& place : places) {
    write(place.file);
    search_.*place.variable = place.value;
    expect_found(CudaLibrary::kCublasLt, place.file, "");
  }
}

TEST_F(FindLibrary, FollowsAVirtualEnvironmentToThePythonItWasMadeFrom) {
  write("base/bin/python3.12");
  write("base/lib/python3.12/site-packages/nvidia/nccl/lib/libnccl.so.2");
  link("venv/bin/python3", path("base/bin/python3.12"));
  search_.program_path = path("venv/bin");
  expect_found(CudaLibrary::kNccl, "base/lib/python3.12/site-packages/nvidia/nccl/lib/libnccl.so.2", "");
  write("venv/lib/python3.12/site-packages/nvidia/nccl/lib/libnccl.so.2");
  expect_found(CudaLibrary::kNccl, "venv/lib/python3.12/site-packages/nvidia/nccl/lib/libnccl.so.2", "");
}

TEST_F(FindLibrary, TakesTheNewestCudnn) {
  write("cuda/lib64/libcudnn.so.9.14.0");
  link("cuda/lib64/libcudnn.so.9", "libcudnn.so.9.14.0");
  expect_found(CudaLibrary::kCudnn, "cuda/lib64/libcudnn.so.9", "9.14.0");

  search_.virtual_env = path("old");
  add_cudnn_wheel("old/lib/python3.12/site-packages", "9");  // 9.9 is older than 9.14
  expect_found(CudaLibrary::kCudnn, "cuda/lib64/libcudnn.so.9", "9.14.0");

  search_.virtual_env = path("new");
  add_cudnn_wheel("new/lib/python3.12/site-packages", "19");
  expect_found(CudaLibrary::kCudnn, "new/lib/python3.12/site-packages/nvidia/cudnn/lib/libcudnn.so.9", "9.19.1");

  search_.library_path = path("named");
  write("named/libcudnn.so.9");
  expect_found(CudaLibrary::kCudnn, "named/libcudnn.so.9", "");
}

TEST_F(FindLibrary, AHeaderWithoutAVersionTellsNone) {
  search_.virtual_env = path("venv");
  add_cudnn_wheel("venv/lib/python3.12/site-packages", "nineteen");
  expect_found(CudaLibrary::kCudnn, "venv/lib/python3.12/site-packages/nvidia/cudnn/lib/libcudnn.so.9", "");
}

}  // namespace
}  // namespace mixtune
