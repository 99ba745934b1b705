#include "data/sequence_fit.h"

#include <fmt/format.h>

#include "base/error.h"
#include "data/formats.h"

namespace mixtune {

void SequenceFit::check(int64_t length, const std::string& where) const {
  if (length > max_seq_length && policy == LongDocuments::kError)
    throw UserError(where,
                    fmt::format("the document of {} tokens is longer than max_seq_length {}", length, max_seq_length),
                    "raise max_seq_length, or set long_documents to truncate or split");
}

SequenceFit fit_of(const DataSettings& settings, bool is_text) {
  LongDocuments policy = settings.long_documents;
  if (policy == LongDocuments::kAuto) policy = is_text ? LongDocuments::kSplit : LongDocuments::kTruncate;
  return {policy, settings.max_seq_length};
}

SequenceFit fit_of_indexed(const DataSettings& settings, const IndexedReader& reader, const std::string& where) {
  if (settings.dataset_format != DatasetFormat::kAuto && settings.dataset_format != DatasetFormat::kTokenized)
    throw UserError(where,
                    fmt::format("is indexed data, token ids already, and not {}", format_name(settings.dataset_format)),
                    "leave dataset_format out");
  return fit_of(settings, !reader.has_mask());
}

}  // namespace mixtune
