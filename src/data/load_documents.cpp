#include "data/load_documents.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <limits>

#include "base/error.h"
#include "base/log.h"
#include "data/formats.h"
#include "data/record_reader.h"

namespace mixtune {

namespace {

struct Counts {
  int64_t records = 0, truncated = 0, split = 0, dropped = 0;
};

LongDocuments long_policy(LongDocuments asked, DatasetFormat format) {
  if (asked != LongDocuments::kAuto) return asked;
  return format == DatasetFormat::kText ? LongDocuments::kSplit : LongDocuments::kTruncate;
}

void check_ids(const TokenSequence& sequence, int64_t vocab_size, const std::string& where) {
  const auto refuse = [&](int32_t id, size_t i, const char* list) {
    throw UserError(where, fmt::format("{}[{}] is {}, outside the model's vocabulary of {}", list, i, id, vocab_size),
                    "use the tokenizer that belongs to this model");
  };
  for (size_t i = 0; i < sequence.ids.size(); ++i) {
    const int32_t id = sequence.ids[i], label = sequence.labels[i];
    if (id < 0 || id >= vocab_size) refuse(id, i, "input_ids");
    if (label != kIgnoreTarget && (label < 0 || label >= vocab_size)) refuse(label, i, "labels");
  }
}

void check_length(int64_t length, int64_t max_seq_length, LongDocuments policy, const std::string& where) {
  if (length > max_seq_length && policy == LongDocuments::kError)
    throw UserError(where,
                    fmt::format("the document of {} tokens is longer than max_seq_length {}", length, max_seq_length),
                    "raise max_seq_length, or set long_documents to truncate or split");
}

// Appends a record's tokens, made to fit max_seq_length. A piece begins with the last token of the one before, whose
// label is not trained a second time: the first token of a document is no target.
void append_fitted(Documents& documents, const TokenSequence& sequence, LongDocuments policy, int64_t max_seq_length,
                   Counts& counts) {
  const auto length = static_cast<int64_t>(sequence.ids.size());
  const bool is_long = length > max_seq_length, split = is_long && policy == LongDocuments::kSplit;
  counts.truncated += is_long && !split;
  counts.split += split;
  const std::span<const int32_t> ids = sequence.ids, labels = sequence.labels;
  const auto append = [&](int64_t begin, auto add) {
    const auto count = static_cast<size_t>(std::min(max_seq_length, length - begin));
    counts.dropped += !(documents.*add)(ids.subspan(begin, count), labels.subspan(begin, count));
  };
  append(0, sequence.continues ? &Documents::append_piece : &Documents::append);
  for (int64_t begin = max_seq_length - 1; split && begin + 1 < length; begin += max_seq_length - 1)
    append(begin, &Documents::append_piece);
}

// Lines that are tokenised together, on all threads.
struct Block {
  static constexpr size_t kMaxLines = 4096;
  static constexpr size_t kMaxBytes = size_t{8} << 20;  // a line more may exceed it

  std::vector<std::string> lines, wheres;

  // At most `most` lines; false where there is none.
  bool read(RecordReader& reader, int64_t most) {
    lines.clear();
    wheres.clear();
    const auto count = std::min(kMaxLines, static_cast<size_t>(most));
    size_t bytes = 0;
    for (std::string_view text; lines.size() < count && bytes < kMaxBytes && reader.next_text(text);) {
      lines.emplace_back(text);
      wheres.push_back(reader.where());
      bytes += text.size();
    }
    return !lines.empty();
  }
};

struct Source {
  const DataSettings& settings;
  const TextEncoder& encoder;
  int64_t vocab_size;
};

std::vector<std::vector<TokenSequence>> encode(const Block& block, DatasetFormat format, const Source& source) {
  std::vector<std::vector<TokenSequence>> records(block.lines.size());
  std::vector<std::exception_ptr> errors(block.lines.size());
#pragma omp parallel for schedule(dynamic)
  for (size_t i = 0; i < records.size(); ++i) {
    try {
      const std::string& where = block.wheres[i];
      Record record = parse_record(parse_json_line(block.lines[i], where), format, where);
      records[i] = encode_record(std::move(record), source.encoder, where);
      for (const TokenSequence& document : records[i]) check_ids(document, source.vocab_size, where);
    } catch (...) {
      errors[i] = std::current_exception();
    }
  }
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
  return records;
}

DatasetFormat given_format(const Dataset& dataset, DatasetFormat otherwise) {
  return dataset.format == DatasetFormat::kAuto ? otherwise : dataset.format;
}

// The first `most` records, at least one, of a file.
void load_file(Documents& documents, const std::string& file, DatasetFormat format, int64_t most, const Source& source,
               Counts& counts) {
  const DataSettings& settings = source.settings;
  RecordReader reader(file);
  const int64_t records_before = counts.records;
  for (Block block; block.read(reader, most - (counts.records - records_before));) {
    if (format == DatasetFormat::kAuto)
      format = detect_format(parse_json_line(block.lines[0], block.wheres[0]), block.wheres[0]);
    const LongDocuments policy = long_policy(settings.long_documents, format);
    const std::vector<std::vector<TokenSequence>> records = encode(block, format, source);
    for (size_t i = 0; i < records.size(); ++i) {
      const std::string& where = block.wheres[i];
      if (records[i].front().continues && i == 0 && counts.records == records_before)
        throw UserError(where, "'continues_record' in the first line", "keep the lines of a file in their order");
      for (const TokenSequence& document : records[i]) {
        check_length(static_cast<int64_t>(document.ids.size()), settings.max_seq_length, policy, where);
        append_fitted(documents, document, policy, settings.max_seq_length, counts);
      }
    }
    counts.records += static_cast<int64_t>(records.size());
  }
  if (counts.records == records_before)
    throw UserError(printable(file, 200), "holds no records", "name a JSONL file with data");
}

void load_dataset(Documents& documents, const Dataset& dataset, const Source& source, Counts& counts) {
  int64_t left = dataset.max_samples > 0 ? dataset.max_samples : std::numeric_limits<int64_t>::max();
  for (const std::string& file : dataset.path) {
    if (left == 0) break;
    const int64_t records_before = counts.records;
    load_file(documents, file, given_format(dataset, source.settings.dataset_format), left, source, counts);
    left -= counts.records - records_before;
  }
}

std::string list_names(std::span<const Dataset> datasets) {
  size_t files = 0;
  for (const Dataset& dataset : datasets) files += dataset.path.size();
  const std::string first = printable(datasets[0].path[0], 200);
  return files == 1 ? first : fmt::format("{} and {} more", first, files - 1);
}

void report(const std::string& name, const Documents& documents, const Counts& counts, int64_t max_seq_length) {
  log_info("{}: {} records, {} documents, {} tokens, {} of them targets", name, counts.records, documents.size(),
           documents.tokens(), documents.targets());
  std::string cuts;
  const auto add = [&](int64_t count, const std::string& what) {
    if (count > 0) cuts += fmt::format("{}{} {}", cuts.empty() ? "" : ", ", count, what);
  };
  add(counts.truncated, fmt::format("longer than max_seq_length {} and truncated", max_seq_length));
  add(counts.split, fmt::format("longer than max_seq_length {} and split", max_seq_length));
  add(counts.dropped, "left without a target and dropped");
  if (!cuts.empty()) log_warning("{}: documents: {}", name, cuts);
}

}  // namespace

bool needs_tokenizer(std::span<const Dataset> datasets, DatasetFormat format) {
  const auto has_text = [](const std::string& file, DatasetFormat given) {
    if (given != DatasetFormat::kAuto) return given != DatasetFormat::kTokenized;
    RecordReader reader(file);
    nlohmann::json record;
    return reader.next(record) && detect_format(record, reader.where()) != DatasetFormat::kTokenized;
  };
  return std::ranges::any_of(datasets, [&](const Dataset& dataset) {
    const DatasetFormat given = given_format(dataset, format);
    return std::ranges::any_of(dataset.path, [&](const std::string& file) { return has_text(file, given); });
  });
}

Documents load_documents(std::span<const Dataset> datasets, const DataSettings& settings, const TextEncoder& encoder,
                         int64_t vocab_size) {
  MT_CHECK(!datasets.empty() && !datasets[0].path.empty() && settings.max_seq_length >= 2);
  Documents documents;
  Counts counts;
  for (const Dataset& dataset : datasets) load_dataset(documents, dataset, {settings, encoder, vocab_size}, counts);
  const std::string name = list_names(datasets);
  if (documents.size() == 0)
    throw UserError(name, fmt::format("data without a single target in {} records", counts.records),
                    "check the labels, and that max_seq_length leaves room for the answers");
  report(name, documents, counts, settings.max_seq_length);
  return documents;
}

}  // namespace mixtune
