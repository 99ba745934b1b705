#include "data/data_key.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "base/content_hash.h"
#include "base/error.h"
#include "base/file.h"
#include "base/output_file.h"
#include "base/staged.h"
#include "config/keys.h"
#include "data/chat_template.h"
#include "data/formats.h"
#include "data/indexed_files.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

constexpr size_t kShaDigits = 64, kKeyDigits = 32;
constexpr const char* kVersion = "tokenised data 2";

// Groups of keys, and single keys, that do not affect the tokens of a document.
constexpr std::string_view kOtherGroups[] = {"Adapters", "Router",  "Batch and length of the run", "Optimizer",
                                             "Output",   "Machine", "Precision and memory",        "Several ranks"};
constexpr std::string_view kOtherKeys[] = {"model_name_or_path",
                                           "tokenizer_name_or_path",
                                           "resize_vocabulary",
                                           "train_file",
                                           "datasets",
                                           "validation_file",
                                           "validation_split_percentage",
                                           "split",
                                           "reset_position_ids",
                                           "reset_attention_mask",
                                           "eod_mask_loss",
                                           "packing",
                                           "shuffle",
                                           "data_cache"};

// A file whose time of change is this recent may change again without a new one.
constexpr std::chrono::seconds kSettled{2};

int64_t nanoseconds(const timespec& time) {
  return time.tv_sec * 1'000'000'000 + time.tv_nsec;
}

// A text that changes with a file's content; "" where the file is not there or has only just changed.
std::string state_of(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) return "";
  const int64_t changed = std::max(nanoseconds(status.st_mtim), nanoseconds(status.st_ctim));
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  if (now - std::chrono::nanoseconds(changed) < kSettled) return "";
  return fmt::format("{}\n{} {} {} {} {}", fs::absolute(path).string(), status.st_dev, status.st_ino, status.st_size,
                     nanoseconds(status.st_mtim), nanoseconds(status.st_ctim));
}

std::string memory_path(const std::string& state, const std::string& folder) {
  ContentHash hash;
  hash.add_text(state);
  return fmt::format("{}/hash-{}", folder, hash.hex().substr(0, kKeyDigits));
}

std::string recall(const std::string& path) {
  try {
    std::string text = read_small_file(path, kShaDigits, "");
    const bool is_hash = text.size() == kShaDigits && text.find_first_not_of("0123456789abcdef") == text.npos;
    return is_hash ? text : "";
  } catch (const Error&) {
    return "";
  }
}

void remember(const std::string& path, const std::string& hash) {
  try {
    fs::create_directories(fs::path(path).parent_path());
    write_whole_file(path, hash, Existing::kReplaced);
  } catch (const std::exception&) {
    // Then the next run reads the file again.
  }
}

void add_data_files(ContentHash& key, std::span<const std::string> files, const std::string& folder,
                    const std::function<void()>& advanced) {
  for (const std::string& file : files) {
    const auto prefix = find_indexed(file);
    if (!prefix) {
      key.add_text(remembered_hash(file, folder, advanced));
      continue;
    }
    key.add_text("indexed");
    std::error_code ignored;
    for (const std::string& part : IndexedPaths(*prefix).all())
      key.add_text(fs::exists(part, ignored) ? remembered_hash(part, folder, advanced) : "");
  }
}

// Adds every small file beside the tokeniser's: vocabularies, added tokens, templates. None is worth a wrong token.
void add_tokenizer(ContentHash& key, const Tokenizer& tokenizer) {
  constexpr uintmax_t kLargest = 64 << 20;
  std::vector<fs::path> paths = {tokenizer.path()};
  std::error_code error;
  for (fs::directory_iterator entry(parent_folder(tokenizer.path()), error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string ending = entry->path().extension();
    const bool may_matter = ending == ".json" || ending == ".jinja" || ending == ".model";
    std::error_code gone;
    if (may_matter && entry->is_regular_file(gone) && entry->file_size(gone) <= kLargest)
      paths.push_back(entry->path());
  }
  std::ranges::sort(paths);
  for (const fs::path& path : paths) {
    key.add_text(path.filename().string());
    key.add_text(hash_file(path));
  }
}

void add_settings(ContentHash& hash, const Config& config) {
  for (const Key& key : keys()) {
    if (std::ranges::find(kOtherGroups, key.group) != std::end(kOtherGroups) ||
        std::ranges::find(kOtherKeys, key.name) != std::end(kOtherKeys))
      continue;
    hash.add_text(key.name);
    hash.add_text(format_value(key.get(config)));
  }
}

}  // namespace

std::string remembered_hash(const std::string& path, const std::string& folder, const std::function<void()>& advanced) {
  const std::string state = state_of(path), memory = memory_path(state, folder);
  if (!state.empty())
    if (const std::string hash = recall(memory); !hash.empty()) return hash;
  const std::string hash = hash_file(path, advanced);
  if (!state.empty() && state_of(path) == state) remember(memory, hash);
  return hash;
}

std::string data_key(std::span<const Dataset> datasets, const Config& config, const Tokenizer* tokenizer,
                     int64_t vocab_size, const std::string& folder, const std::function<void()>& advanced) {
  ContentHash key;
  key.add_text(kVersion);
  key.add_text(remembered_hash("/proc/self/exe", folder, advanced));
  key.add_text(fmt::format("{}", vocab_size));
  add_settings(key, config);
  if (tokenizer) add_tokenizer(key, *tokenizer);
  for (const Dataset& dataset : datasets) {
    key.add_text(fmt::format("{} {} {}", format_name(dataset.format), template_name(dataset.chat_template),
                             dataset.max_samples));
    add_data_files(key, dataset.path, folder, advanced);
  }
  return key.hex().substr(0, kKeyDigits);
}

}  // namespace mixtune
