// Shared libraries that are opened while the program runs, and the places where CUDA's own are on a machine.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mixtune {

// An open shared library. Once open it stays in memory: CUDA's libraries do not bear to be unloaded.
class Library {
 public:
  // Opens a file, or a name for the loader to find. Throws Error where it cannot be opened.
  explicit Library(const std::string& path);
  ~Library();
  Library(Library&& other) noexcept;
  Library& operator=(Library&&) = delete;

  // Sets `function`, a pointer to a function, to the one called `name`. Throws Error where there is none.
  template <class Function>
  void load(Function*& function, const char* name) const {
    function = reinterpret_cast<Function*>(address(name));
  }

  std::string path() const;                 // of the file, also where the loader found it
  void* handle() const { return handle_; }  // dlopen's, for those who look functions up themselves

 private:
  void* address(const char* name) const;

  std::string name_;
  void* handle_;
};

enum class CudaLibrary { kCublasLt, kCudnn, kNccl };
std::string_view library_name(CudaLibrary library);  // "cuBLASLt"

struct FoundLibrary {
  std::string path;
  std::string version;  // "9.19.0", as far as the files around it tell without opening it; else empty
};

// The places to look, in this order. Empty: it is not there.
struct LibrarySearch {
  std::string library_path;      // MIXTUNE_LIBRARY_PATH: folders between colons; a library there is taken, of any age
  std::string virtual_env;       // VIRTUAL_ENV: the folders of wheels, as PyTorch brings them
  std::string program_path;      // PATH: the wheels of its first python3
  std::string cuda_home;         // CUDA_HOME
  std::string toolkit;           // where CUDA is installed by default
  std::string system_libraries;  // LD_LIBRARY_PATH and the system's folders, between colons
  bool loader = false;           // at last, what the loader knows

  static LibrarySearch of_process();
};

// The first library found; for cuDNN the newest, since newer ones have faster attention.
std::optional<FoundLibrary> find_library(CudaLibrary library,
                                         const LibrarySearch& search = LibrarySearch::of_process());

// Opens the library that find_library finds; for cuDNN also the libraries it is made of, from the same folder. Throws
// Error where there is none.
Library open_library(CudaLibrary library);

// The version that an open library tells: "13.1.0".
std::string library_version(CudaLibrary library, const Library& opened);

}  // namespace mixtune
