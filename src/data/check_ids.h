// check_ids: the rules for the ids and labels of a document.
#pragma once

#include <cstdint>
#include <string>

#include "data/record.h"

namespace mixtune {

// Throws UserError (at `where`) for an id outside [0, vocab_size), and for a label that is neither kIgnoreTarget nor
// its token; that of the first token only has to be in the vocabulary.
void check_ids(const TokenSequence& sequence, int64_t vocab_size, const std::string& where);

}  // namespace mixtune
