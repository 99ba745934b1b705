// check_tokenizer_model: sentencepiece trusts a tokenizer.model (google/sentencepiece#1269), so this checks it first.
#pragma once

#include <string>
#include <string_view>

namespace mixtune {

// `proto` is the text of a sentencepiece ModelProto. Throws UserError at `where` unless its messages lie within each
// other, its pieces are of sane length and number, and no text can lead the trie or a replacement of a
// precompiled_charsmap (its rules of normalisation) out of that charsmap.
void check_tokenizer_model(std::string_view proto, const std::string& where);

}  // namespace mixtune
