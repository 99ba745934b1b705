#include "data/load_documents.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <limits>

#include "base/error.h"
#include "data/check_ids.h"
#include "data/data_files.h"
#include "data/file_notes.h"
#include "data/formats.h"
#include "data/indexed_reader.h"
#include "data/load_report.h"
#include "data/record_reader.h"
#include "data/sequence_fit.h"

namespace mixtune {

namespace {

struct Piece {
  std::span<const int32_t> ids, labels;
  std::span<const float> weights;  // empty: all are 1
};

// Appends `length` tokens of a record, made to fit; `read(begin, count)` is the Piece of some of them. A piece begins
// with the last token of the one before. That token's label is not trained a second time: the first token of a document
// is no target.
template <class Read>
void append_fitted(DocumentSink& documents, int64_t length, bool continues, const SequenceFit& fit, LoadCounts& counts,
                   const Read& read) {
  const bool is_long = length > fit.max_seq_length, split = is_long && fit.policy == LongDocuments::kSplit;
  counts.truncated += is_long && !split;
  counts.split += split;
  const auto append = [&](int64_t begin, auto add) {
    const Piece piece = read(begin, std::min(fit.max_seq_length, length - begin));
    counts.dropped += !(documents.*add)(piece.ids, piece.labels, piece.weights);
  };
  append(0, continues ? &DocumentSink::append_piece : &DocumentSink::append);
  for (int64_t begin = fit.max_seq_length - 1; split && begin + 1 < length; begin += fit.max_seq_length - 1)
    append(begin, &DocumentSink::append_piece);
}

// Lines that are tokenised together, on all threads.
struct Block {
  static constexpr size_t kMaxLines = 4096;
  static constexpr size_t kMaxBytes = size_t{8} << 20;  // a line more may exceed it

  std::vector<std::string> lines, wheres;

  // Reads at most `most` lines. Returns false where there is none.
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

std::vector<std::vector<TokenSequence>> encode(const Block& block, DatasetFormat format, const Source& source,
                                               FileNotes& notes) {
  std::vector<std::vector<TokenSequence>> records(block.lines.size());
  std::vector<FileNotes> notes_of(block.lines.size());
  const bool watches = source.encoder.tokenizer && !source.encoder.parse_special_tokens;
  std::vector<std::exception_ptr> errors(block.lines.size());
#pragma omp parallel for schedule(dynamic)
  for (size_t i = 0; i < records.size(); ++i) {
    try {
      const std::string& where = block.wheres[i];
      Record record = parse_record(parse_json_line(block.lines[i], where), format, where, notes_of[i].unread);
      if (watches) notes_of[i].specials = spelt_specials(record, *source.encoder.tokenizer);
      records[i] = encode_record(std::move(record), source.encoder, where);
      for (const TokenSequence& document : records[i]) check_ids(document, source.vocab_size, where);
    } catch (...) {
      errors[i] = std::current_exception();
    }
  }
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
  for (const FileNotes& more : notes_of) notes.add(more);
  return records;
}

DatasetFormat given_format(const Dataset& dataset, DatasetFormat otherwise) {
  return dataset.format == DatasetFormat::kAuto ? otherwise : dataset.format;
}

// Loads the first `most` records, at least one, of a file.
void load_file(DocumentSink& documents, const std::string& file, DatasetFormat format, int64_t most,
               const Source& source, LoadCounts& counts) {
  const DataSettings& settings = source.settings;
  RecordReader reader(file);
  const int64_t records_before = counts.records;
  FileNotes notes;
  for (Block block; block.read(reader, most - (counts.records - records_before));) {
    if (format == DatasetFormat::kAuto)
      format = detect_format(parse_json_line(block.lines[0], block.wheres[0]), block.wheres[0]);
    const SequenceFit fit = fit_of(settings, format == DatasetFormat::kText);
    const std::vector<std::vector<TokenSequence>> records = encode(block, format, source, notes);
    for (size_t i = 0; i < records.size(); ++i) {
      const std::string& where = block.wheres[i];
      if (records[i].front().continues && i == 0 && counts.records == records_before)
        throw UserError(where, "'continues_record' in the first line", "keep the lines of a file in their order");
      for (const TokenSequence& document : records[i]) {
        const auto length = static_cast<int64_t>(document.ids.size());
        fit.check(length, where);
        append_fitted(documents, length, document.continues, fit, counts, [&](int64_t begin, int64_t count) {
          return Piece{
              std::span(document.ids).subspan(begin, count), std::span(document.labels).subspan(begin, count),
              document.weights.empty() ? std::span<const float>() : std::span(document.weights).subspan(begin, count)};
        });
      }
    }
    counts.records += static_cast<int64_t>(records.size());
  }
  if (counts.records == records_before)
    throw UserError(printable(file, 200), "holds no records", "name a JSONL file with data");
  notes.report(printable(file, 200), format_name(format));
}

// Loads the first `most` records.
void load_indexed(DocumentSink& documents, const std::string& prefix, int64_t most, const Source& source,
                  LoadCounts& counts) {
  const std::string shown = printable(prefix, 200);
  const IndexedReader reader(prefix, source.vocab_size);
  const SequenceFit fit = fit_of_indexed(source.settings, reader, shown);
  std::vector<int32_t> ids, labels;
  std::vector<float> weights;
  const auto append = [&](int64_t sequence, bool continues) {
    const int64_t length = reader.length(sequence);
    fit.check(length, fmt::format("{}, sequence {}", shown, sequence));
    append_fitted(documents, length, continues, fit, counts, [&](int64_t begin, int64_t count) {
      ids.resize(count);
      labels.resize(count);
      reader.read(sequence, begin, ids, labels);
      if (!reader.has_weights()) return Piece{ids, labels, {}};
      weights.resize(count);
      reader.read_weights(sequence, begin, weights);
      return Piece{ids, labels, weights};
    });
  };
  const int64_t records = std::min(reader.documents(), most);
  for (int64_t d = 0, begin = 0; d < records; ++d) {
    const int64_t end = reader.document_begin(d + 1);
    if (begin == end) counts.dropped += !documents.append({}, {});
    for (int64_t sequence = begin; sequence < end; ++sequence) append(sequence, sequence > begin);
    begin = end;
  }
  counts.records += records;
}

void load_dataset(DocumentSink& documents, const Dataset& dataset, const Source& source, LoadCounts& counts) {
  const DatasetFormat format = given_format(dataset, source.settings.dataset_format);
  int64_t left = dataset.max_samples > 0 ? dataset.max_samples : std::numeric_limits<int64_t>::max();
  for (const std::string& file : dataset.path) {
    if (left == 0) break;
    const int64_t records_before = counts.records;
    if (const auto prefix = find_indexed(file))
      load_indexed(documents, *prefix, left, source, counts);
    else
      load_file(documents, file, format, left, source, counts);
    left -= counts.records - records_before;
  }
}

// Whether the first record of any file (none of indexed data) is `wanted`, by its format and itself. Some faulty ones
// before it are passed over here: loading them names them.
template <class Wanted>
bool any_first_record(std::span<const Dataset> datasets, DatasetFormat otherwise, const Wanted& wanted) {
  constexpr int kTried = 100;
  const auto is_wanted = [&](const std::string& file, DatasetFormat format) {
    if (find_indexed(file)) return false;
    RecordReader reader(file);
    std::exception_ptr fault;
    for (int tried = 0; tried < kTried; ++tried) {
      try {
        nlohmann::ordered_json record;
        if (!reader.next(record)) break;
        return wanted(format == DatasetFormat::kAuto ? detect_format(record, reader.where()) : format, record);
      } catch (const UserError&) {
        if (!fault) fault = std::current_exception();
      }
    }
    if (fault) std::rethrow_exception(fault);
    return false;
  };
  return std::ranges::any_of(datasets, [&](const Dataset& dataset) {
    const DatasetFormat format = given_format(dataset, otherwise);
    return std::ranges::any_of(dataset.path, [&](const std::string& file) { return is_wanted(file, format); });
  });
}

}  // namespace

bool needs_tokenizer(std::span<const Dataset> datasets, DatasetFormat format) {
  return any_first_record(datasets, format,
                          [](DatasetFormat of_record, const auto&) { return of_record != DatasetFormat::kTokenized; });
}

bool needs_chat_template(std::span<const Dataset> datasets, DatasetFormat format) {
  return any_first_record(datasets, format, [](DatasetFormat of_record, const auto& record) {
    const bool of_turns =
        of_record == DatasetFormat::kPromptCompletion && record.contains("prompt") && record["prompt"].is_array();
    return of_turns || of_record == DatasetFormat::kMessages || of_record == DatasetFormat::kInstruction;
  });
}

void load_documents(std::span<const Dataset> datasets, const DataSettings& settings, const TextEncoder& encoder,
                    int64_t vocab_size, DocumentSink& documents) {
  MT_CHECK(!datasets.empty() && settings.max_seq_length >= 2);
  LoadCounts counts;
  for (const Dataset& dataset : datasets) {
    const TextEncoder own = encoder.with_template(dataset.chat_template);
    load_dataset(documents, dataset, {settings, own, vocab_size}, counts);
  }
  report_loaded(list_names(files_of(datasets)), documents.appended(), counts, settings.max_seq_length);
}

MemoryDocuments load_documents(std::span<const Dataset> datasets, const DataSettings& settings,
                               const TextEncoder& encoder, int64_t vocab_size) {
  MemoryDocuments documents;
  load_documents(datasets, settings, encoder, vocab_size, documents);
  return documents;
}

}  // namespace mixtune
