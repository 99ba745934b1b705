// marked_text: a tokenised document as text for people, in which the trained part stands out.
#pragma once

#include <string>

#include "data/record.h"
#include "data/tokenizer.h"

namespace mixtune {

// One line of at most about 2,000 characters. Special tokens show their names. Trained stretches are green where
// `colour`, else between "[[" and "]]". Ids outside the tokeniser's vocabulary show as numbers.
std::string marked_text(const Tokenizer& tokenizer, const TokenSequence& document, bool colour);

}  // namespace mixtune
