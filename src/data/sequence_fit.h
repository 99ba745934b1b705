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

  // Throws UserError where a document of `length` tokens may not be cut.
  void check(int64_t length, const std::string& where) const;
};

// The fit that `settings` say. Left to mixtune, text is split and all else truncated.
SequenceFit fit_of(const DataSettings& settings, bool is_text);
// The fit for indexed data: it is text where every token is trained. Throws UserError where `settings` name another
// format.
SequenceFit fit_of_indexed(const DataSettings& settings, const IndexedReader& reader, const std::string& where);

}  // namespace mixtune
