// What `mixtune generate` does with its arguments.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "config/load.h"
#include "generate/prompter.h"
#include "generate/sampling.h"

namespace mixtune {

// Checked by the command.
struct GenerateArguments {
  std::string model, base, tokenizer;
  // What there is to continue: one of these; with text.chat also none, which is a conversation on standard input.
  std::optional<std::string> prompt, prompts, ids;  // a text; a file; a list
  std::string logits;                               // a file to write
  PromptOptions text;
  int64_t batch = 8;  // prompts of the file at once
  int64_t max_new_tokens = 128;
  int64_t max_length = int64_t{1} << 17;  // tokens of a conversation
  Sampling sampling;
  int ranks = 0;  // --nproc
};

// Prints to standard output. `overrides`: the keys of the machine and of its ranks.
void generate(const GenerateArguments& arguments, const Overrides& overrides);

}  // namespace mixtune
