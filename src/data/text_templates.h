// Chat templates that are rendered to one text and tokenised as transformers does: what apply_chat_template gives.
//
//   chatml   <|im_start|>ROLE\nTEXT<|im_end|>\n for each turn
//   zephyr   <|ROLE|>\nTEXT</s>\n for each turn
//   vicuna   <s>SYSTEM USER: TEXT ASSISTANT: TEXT</s>USER: TEXT ASSISTANT: TEXT</s>, as FastChat's version 1.1
//   alpaca   <s>SYSTEM\n\n### Instruction:\nTEXT\n\n### Response:\nTEXT</s>\n\n### Instruction: ...
//   llama-2  <s>[INST] <<SYS>>\nSYSTEM\n<</SYS>>\n\nTEXT [/INST] TEXT </s><s>[INST] TEXT [/INST] TEXT </s>
//
// <s> and </s> stand for the tokeniser's BOS and EOS. Nothing is stripped, but llama-2 strips white space from both
// ends of what stands between its marks. Trained is an answer with its end mark: <|im_end|> or </s>, in llama-2 with
// the space before it; never the line break after it, with which chatml and zephyr end.
#pragma once

#include <string>

#include "config/config.h"
#include "data/record.h"
#include "data/stretch.h"

namespace mixtune {

// The differences between checkpoints' templates of one name.
struct TemplateVariant {
  std::string default_system;  // for a conversation that has none; empty: none
  bool bos = false;            // begins with BOS
  bool ends_with_gap = false;  // alpaca: an empty line after the last answer too
  bool operator==(const TemplateVariant&) const = default;
};

// The variant of a name that is asked for where the folder's own template has another name.
TemplateVariant usual_variant(ChatTemplateName name);

// Renders by `name`, one of the above. A conversation for training ends with the assistant. A prompt ends with the
// user, and what comes before the answer follows. Throws UserError (at `where`) for tools, and for turns that the
// template has no place for: vicuna, alpaca and llama-2 take system text at the beginning alone, llama-2 only users and
// assistants in alternation, the user first.
Stretches render_text(ChatTemplateName name, const TemplateVariant& variant, const Conversation& conversation,
                      const Marks& marks, bool for_training, const std::string& where);

}  // namespace mixtune
