// SequenceFit: how documents that are longer than max_seq_length are made to fit.
#pragma once

#include <cstdint>
#include <string>

#include "config/config.h"
#include "data/indexed_reader.h"

namespace mixtune {

struct SequenceFit {
  LongDocuments policy = LongDocuments::kTruncate;  // not kAuto
  int64_t max_seq_length = 0;

  // Throws UserError where a document of `length` tokens is not to be cut.
  void check(int64_t length, const std::string& where) const;
};

// As `settings` say; left to mixtune, text is split and all else truncated.
SequenceFit fit_of(const DataSettings& settings, bool is_text);
// The same for indexed data: where every token is trained it is text. Throws UserError where `settings` name another
// format.
SequenceFit fit_of_indexed(const DataSettings& settings, const IndexedReader& reader, const std::string& where);

}  // namespace mixtune
