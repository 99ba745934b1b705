#include "data/cache_entry.h"

#include <fmt/format.h>

#include <filesystem>
#include <utility>

#include "base/content_hash.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/json_value.h"
#include "base/output_file.h"
#include "data/indexed_documents.h"

namespace mixtune {

namespace {

constexpr size_t kHashDigits = 64;
constexpr size_t kMaxSeal = 16 << 20;
constexpr int kSealDepth = 5;
constexpr const char* kRemoveEntry = "remove it";

std::string seal_path(const std::string& folder) {
  return folder + "/seal.json";
}

std::string hash_of(std::string_view text) {
  ContentHash hash;
  hash.add_text(text);
  return hash.hex();
}

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw Error(printable(path, 200), what, kRemoveEntry);
}

nlohmann::json sizes_of(const std::string& folder) {
  nlohmann::json sizes = nlohmann::json::object();
  for (const std::string& path : IndexedPaths(entry_prefix(folder)).all()) {
    std::error_code error;
    const auto size = std::filesystem::file_size(path, error);
    sizes[std::filesystem::path(path).filename().string()] = error ? 0 : size;
  }
  return sizes;
}

nlohmann::json read_seal(const std::string& folder) {
  const std::string path = seal_path(folder), text = read_small_file(path, kMaxSeal, kRemoveEntry);
  if (text.size() <= kHashDigits) fail(path, "is cut off");
  const std::string_view content = std::string_view(text).substr(kHashDigits);
  if (hash_of(content) != text.substr(0, kHashDigits)) fail(path, "is not what was written");
  return parse_json_object(content, path, kRemoveEntry, kSealDepth);
}

}  // namespace

std::string entry_prefix(const std::string& folder) {
  return folder + "/data";
}

void seal_entry(const std::string& folder, const DocumentSink& documents, std::span<const LogRecord::Line> lines) {
  const DocumentTotals& totals = documents.appended();
  nlohmann::json log = nlohmann::json::array();
  for (const LogRecord::Line& line : lines)
    log.push_back({{"warning", line.level != LogLevel::kInfo}, {"text", line.text}});
  const nlohmann::json seal = {{"documents", totals.documents},
                               {"tokens", totals.tokens},
                               {"targets", totals.targets},
                               {"max_length", totals.max_length},
                               {"records", totals.records},
                               {"weighted", totals.weighted},
                               {"digest", documents.digest()},
                               {"sizes", sizes_of(folder)},
                               {"index", hash_file(IndexedPaths(entry_prefix(folder)).idx)},
                               {"log", std::move(log)}};
  const std::string content = seal.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  write_file(seal_path(folder), hash_of(content) + content);
}

CacheEntry open_entry(const std::string& folder, int64_t vocab_size, int64_t max_seq_length) {
  const nlohmann::json seal = read_seal(folder);
  if (sizes_of(folder) != seal.at("sizes")) fail(folder, "files have other sizes than were written");
  const std::string prefix = entry_prefix(folder), idx = IndexedPaths(prefix).idx;
  if (hash_file(idx) != seal.at("index").get<std::string>()) fail(idx, "is not what was written");
  const DocumentTotals totals{.documents = seal.at("documents"),
                              .tokens = seal.at("tokens"),
                              .targets = seal.at("targets"),
                              .max_length = seal.at("max_length"),
                              .records = seal.at("records"),
                              .weighted = seal.at("weighted")};
  CacheEntry entry;
  entry.documents = std::make_shared<IndexedDocuments>(IndexedReader(prefix, vocab_size),
                                                       SequenceFit{.max_seq_length = max_seq_length}, totals,
                                                       seal.at("digest").get<uint64_t>());
  for (const nlohmann::json& line : seal.at("log"))
    entry.lines.push_back({line.at("warning") ? LogLevel::kWarning : LogLevel::kInfo, line.at("text")});
  return entry;
}

}  // namespace mixtune
