// Chat templates: turn a conversation into tokens, and mark those to train. docs/templates.md shows each.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "data/text_templates.h"
#include "data/tokenizer.h"

namespace mixtune {

struct Conversation;
struct TextEncoder;
struct TokenSequence;

struct ChatTemplate {
  ChatTemplateName name = ChatTemplateName::kMistralV1;  // never kAuto
  TemplateVariant variant = {};                          // of a text template (text_templates.h)
};

// The name in the key chat_template.
std::string_view template_name(ChatTemplateName name);

// Encodes for training; ends with the assistant. Trained are the answers of turns with `train`, with their end marks;
// with `train_on_prompt` also all that is no answer, but BOS. A token of a text template is trained where a byte of it
// is (as with transformers' assistant masks), by the largest weight of these: the space before an answer may be in its
// first token. Throws UserError (at `where`) for what the template refuses (mistral_template.h, text_templates.h).
TokenSequence encode_conversation(const TextEncoder& encoder, const Conversation& conversation,
                                  const std::string& where);

// Encodes for generation: ends with the user, and what comes before an answer. Throws like encode_conversation.
std::vector<int32_t> encode_prompt(const TextEncoder& encoder, const Conversation& conversation,
                                   const std::string& where);

// The token that ends an answer.
int32_t end_of_answer(const TextEncoder& encoder);

}  // namespace mixtune
