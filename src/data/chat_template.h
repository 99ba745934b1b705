// The chat template of Mixtral-Instruct, token for token as mistral-common's v1 tokeniser has it:
//
//   <s> [INST] SYSTEM\n\nUSER [/INST] ANSWER </s> [INST] USER [/INST] ANSWER </s>
//
// Each "[INST] ... [/INST]" and each answer is encoded by itself; adjacent turns of one role are one, joined by an
// empty line; nothing is stripped. A conversation that an assistant opens starts with an empty user turn.
#pragma once

#include <string>
#include <vector>

#include "data/text_encoder.h"

namespace mixtune {

// For training: ends with the assistant. Trained are the answers with their EOS; with `train_on_prompt` all but BOS.
// Throws UserError (at `where`) for an empty answer, a system turn after another role's, or an end that is not an
// answer.
TokenSequence encode_conversation(const TextEncoder& encoder, const Conversation& conversation,
                                  const std::string& where);

// For generation: ends with the user. Throws like encode_conversation.
std::vector<int32_t> encode_prompt(const TextEncoder& encoder, const Conversation& conversation,
                                   const std::string& where);

}  // namespace mixtune
