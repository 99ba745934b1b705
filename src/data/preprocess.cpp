#include "data/preprocess.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <memory>

#include "base/error.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

// A file under another name, which is removed unless it is published.
class PendingFile {
 public:
  explicit PendingFile(const std::string& path) : path_(path), pending_(fmt::format("{}.{}.part", path, getpid())) {
    file_.reset(std::fopen(pending_.c_str(), "wbx"));
    if (!file_) fail("cannot be created");
  }
  ~PendingFile() {
    if (!pending_.empty()) unlink(pending_.c_str());
  }
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;

  void write(std::string_view text) {
    if (std::fwrite(text.data(), 1, text.size(), file_.get()) != text.size()) fail("cannot be written");
  }

  void publish() {
    if (std::fflush(file_.get()) != 0 || fsync(fileno(file_.get())) != 0 || std::fclose(file_.release()) != 0)
      fail("cannot be written");
    if (std::rename(pending_.c_str(), path_.c_str()) != 0) fail("cannot be renamed to its final name");
    pending_.clear();
  }

 private:
  [[noreturn]] void fail(const char* what) {
    throw Error(printable(path_, 200), fmt::format("{}: {}", what, std::strerror(errno)),
                "check the disk's free space and rights");
  }

  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  std::string path_, pending_;
  std::unique_ptr<std::FILE, Close> file_;
};

template <class Out>
void format_list(Out out, std::span<const int32_t> values) {
  fmt::format_to(out, "[{}]", fmt::join(values, ","));
}

}  // namespace

void check_output_file(const std::string& path, bool overwrite) {
  const std::string shown = printable(path, 200);
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) throw UserError(shown, "is a folder", "name a file as the output");
  const bool exists = fs::exists(path, ignored);
  if (exists && !fs::is_regular_file(path, ignored))
    throw UserError(shown, "is not a regular file", "name a file as the output");
  if (exists && !overwrite) throw UserError(shown, "exists already", "remove it, or name another output");
  const fs::path folder = fs::absolute(path).parent_path();
  if (!fs::is_directory(folder, ignored))
    throw UserError(printable(folder.string(), 200), "is not a folder", "create it first");
  if (access(folder.c_str(), W_OK | X_OK) != 0)
    throw UserError(printable(folder.string(), 200), "is not writable",
                    "name an output elsewhere, or change its rights");
}

void write_tokenized(const Documents& documents, const std::string& path, bool overwrite) {
  check_output_file(path, overwrite);
  PendingFile file(path);
  fmt::memory_buffer line;
  for (int64_t d = 0; d < documents.size(); ++d) {
    const auto out = std::back_inserter(line);
    fmt::format_to(out, "{{\"input_ids\":");
    format_list(out, documents.ids(d));
    fmt::format_to(out, ",\"labels\":");
    format_list(out, documents.labels(d));
    fmt::format_to(out, "}}\n");
    file.write({line.data(), line.size()});
    line.clear();
  }
  file.publish();
}

void print_samples(const Documents& documents, const Tokenizer* tokenizer, int64_t samples, std::FILE* to) {
  for (int64_t d = 0; d < std::min(samples, documents.size()); ++d) {
    const auto ids = documents.ids(d), labels = documents.labels(d);
    fmt::print(to, "document {} of {}: {} tokens\n{:>8} {:>8} {:>8}  {}\n", d + 1, documents.size(), ids.size(),
               "position", "id", "label", tokenizer ? "token" : "");
    for (size_t i = 0; i < ids.size(); ++i) {
      const bool has_piece = tokenizer && ids[i] < tokenizer->vocab_size();
      fmt::print(to, "{:>8} {:>8} {:>8}  {}\n", i, ids[i], labels[i],
                 has_piece ? printable(tokenizer->piece(ids[i])) : "");
    }
  }
}

}  // namespace mixtune
