#include "data/preprocess.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iterator>

#include "base/error.h"
#include "base/output_file.h"
#include "base/staged.h"
#include "data/indexed_writer.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

constexpr size_t kWriteBytes = 1 << 20;  // written at a time

template <class Out, class Value>
void format_list(Out out, const std::vector<Value>& values) {
  fmt::format_to(out, "[{}]", fmt::join(values, ","));
}

}  // namespace

void check_output_file(const std::string& path, bool overwrite) {
  const std::string shown = printable(path, 200);
  std::error_code ignored;
  const fs::file_status status = fs::symlink_status(path, ignored);
  if (fs::is_directory(status)) throw UserError(shown, "is a folder", "name a file as the output");
  const bool exists = fs::exists(status);
  if (exists && !fs::is_regular_file(status))
    throw UserError(shown, fs::is_symlink(status) ? "is a link" : "is not a regular file", "name a file as the output");
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
  StagedPath staged(path);
  OutputFile file(staged.path());
  fmt::memory_buffer lines;
  const auto flush = [&] {
    file.write({lines.data(), lines.size()});
    lines.clear();
  };
  const auto out = std::back_inserter(lines);
  int64_t begun = 0;  // records
  const auto write_empty_records = [&](int64_t end) {
    for (; begun < end; ++begun) fmt::format_to(out, "{{\"input_ids\":[],\"labels\":[]}}\n");
  };
  for (int64_t d = 0; d < documents.size(); ++d) {
    write_empty_records(documents.record(d));
    const Document document = read_document(documents, d);
    fmt::format_to(out, "{{\"input_ids\":");
    format_list(out, document.ids);
    fmt::format_to(out, ",\"labels\":");
    format_list(out, document.labels);
    if (!document.weights.empty()) {
      fmt::format_to(out, ",\"loss_mask\":");
      format_list(out, document.weights);
    }
    if (begun > documents.record(d)) fmt::format_to(out, ",\"continues_record\":true");
    fmt::format_to(out, "}}\n");
    begun = documents.record(d) + 1;
    if (lines.size() >= kWriteBytes) flush();
  }
  write_empty_records(documents.records());
  flush();
  file.finish();
  overwrite ? staged.commit() : staged.commit_new();
}

void write_indexed(const Documents& documents, const std::string& prefix, int64_t vocab_size, bool overwrite) {
  for (const std::string& path : IndexedPaths(prefix).all()) check_output_file(path, overwrite);
  IndexedWriter writer(prefix, vocab_size, overwrite ? Existing::kReplaced : Existing::kRefused);
  int64_t ended = 0;  // records
  const auto end_records = [&](int64_t end) {
    for (; ended < end; ++ended) writer.end_document();
  };
  for (int64_t d = 0; d < documents.size(); ++d) {
    end_records(documents.record(d));
    const auto [ids, labels, weights] = read_document(documents, d);
    writer.append(ids, labels, weights);
  }
  end_records(documents.records());
  writer.finish();
}

void print_samples(const Documents& documents, const Tokenizer* tokenizer, int64_t samples, std::FILE* to) {
  for (int64_t d = 0; d < std::min(samples, documents.size()); ++d) {
    const auto [ids, labels, weights] = read_document(documents, d);
    const bool weighted = !weights.empty();
    fmt::print(to, "document {} of {}: {} tokens\n{:>8} {:>8} {:>8}{}  {}\n", d + 1, documents.size(), ids.size(),
               "position", "id", "label", weighted ? "   weight" : "", tokenizer ? "token" : "");
    for (size_t i = 0; i < ids.size(); ++i) {
      const bool has_piece = tokenizer && ids[i] < tokenizer->vocab_size();
      fmt::print(to, "{:>8} {:>8} {:>8}{}  {}\n", i, ids[i], labels[i],
                 weighted ? fmt::format(" {:>8}", weights[i]) : "",
                 has_piece ? printable(tokenizer->piece(ids[i])) : "");
    }
  }
}

}  // namespace mixtune
