#include "data/preprocess.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "base/error.h"
#include "base/output_file.h"
#include "base/staged.h"
#include "data/indexed_writer.h"

namespace mixtune {

namespace {

constexpr size_t kWriteBytes = 1 << 20;  // written at a time

template <class Out, class Value>
void format_list(Out out, const std::vector<Value>& values) {
  fmt::format_to(out, "[{}]", fmt::join(values, ","));
}

}  // namespace

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
