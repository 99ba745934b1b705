#include "run/shared_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <thread>

#include "base/output_file.h"
#include "base/staged.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

// The folder as this rank resolves it.
std::string resolved(const std::string& folder) {
  return printable(fs::absolute(folder).lexically_normal().string(), 400);
}

// An NFS client asks its server anew for a folder that is opened, and then forgets which names were missing in it.
void refresh(const std::string& folder) {
  for (const std::string& place : {parent_folder(folder), folder})
    const Fd opened(open(place.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

bool holds(const std::string& path, const std::string& word) {
  try {
    return read_small_file(path, word.size(), "") == word;
  } catch (const Error&) {
    return false;  // not there, or not yet
  }
}

bool comes_to_hold(const std::string& folder, const std::string& name, const std::string& word,
                   std::chrono::milliseconds patience) {
  constexpr std::chrono::milliseconds kLongestPause{500};
  const auto end = std::chrono::steady_clock::now() + patience;
  for (std::chrono::milliseconds pause{10};; pause = std::min(2 * pause, kLongestPause)) {
    refresh(folder);
    if (holds(folder + "/" + name, word)) return true;
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(pause);
  }
}

// A file of rank 0, removed when this ends.
class Proof {
 public:
  explicit Proof(const std::string& folder) : file_(folder + "/proof"), word_(unguessable_word()) {
    write_file(file_.path(), word_);
    sync_folder(folder);
  }
  const std::string& word() const { return word_; }
  std::string name() const { return fs::path(file_.path()).filename().string(); }

 private:
  StagedPath file_;
  std::string word_;
};

}  // namespace

std::string find_unshared(Ctx& ctx, Communicator& ranks, const std::string& folder,
                          std::chrono::milliseconds patience) {
  if (ranks.size() == 1) return "";
  std::optional<Proof> proof;
  if (ranks.rank() == 0) proof.emplace(folder);
  const char* what = "proof that ranks share a folder";
  const std::string name = gather_texts(ctx, ranks, what, proof ? proof->name() : "")[0],
                    word = gather_texts(ctx, ranks, what, proof ? proof->word() : "")[0];
  const std::string place = fmt::format("on {} it is {}", host_name(), resolved(folder));
  std::string own = proof ? place : "";
  if (!proof && !comes_to_hold(folder, name, word, patience))
    own = fmt::format("does not see what rank 0 writes there: {}", place);
  else if (!proof && access(folder.c_str(), W_OK | X_OK) != 0)
    own = fmt::format("may not write there ({}): {}", std::strerror(errno), place);
  const std::vector<std::string> all = gather_texts(ctx, ranks, what, own);
  const auto complains = [](const std::string& text) {
    return !text.empty();
  };
  const auto first = std::find_if(all.begin() + 1, all.end(), complains);
  if (first == all.end()) return "";
  const auto others = std::count_if(first + 1, all.end(), complains);
  return fmt::format("rank {} {}, for rank 0 {}{}", first - all.begin(), *first, all[0],
                     others > 0 ? fmt::format(" (and so for {} more)", others) : "");
}

}  // namespace mixtune
