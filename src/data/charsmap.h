// sentencepiece's precompiled_charsmap: rules of normalisation, as a trie of texts and their replacements.
#pragma once

#include <string_view>

namespace mixtune {

// Whether no text can lead sentencepiece out of `charsmap` (its Normalizer::NormalizePrefix): 4 bytes of little-endian
// size, the units of a darts-clone double array, then the replacements, each ended by a zero byte. An empty one has no
// rules.
bool is_sound_charsmap(std::string_view charsmap);

}  // namespace mixtune
