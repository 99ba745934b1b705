// choose_template: the chat template of a run: that of the tokeniser's folder, or the one that is asked for.
#pragma once

#include <string>

#include "data/chat_template.h"

namespace mixtune {

struct ChosenTemplate {
  ChatTemplate chat_template;
  std::string why;          // the reason, for the user
  std::string source;       // Jinja text, for a checkpoint trained with it
  bool is_folders = false;  // the folder has this source
};

// `asked`: kAuto takes what the folder has in chat_template.jinja, or else as chat_template in tokenizer_config.json
// (of several the one named "default"), by its text. The tokeniser tells the version of Mistral's templates: [INST] as
// a control token is v3, in a model file named .v2 it is v2, and else v1. That decides too where the folder has no
// template. Another name than the folder's is taken with a warning.
//
// `is_runs`: the template is the run's, whose checkpoints have it; false: that of one of its data sets, which warns of
// nothing. `folder`: the tokeniser's, or a file in it. `where` names the setting in messages. Throws UserError for a
// template that is not known (with its first difference to the nearest known one), one that is not supported, and one
// whose control tokens the tokeniser lacks.
ChosenTemplate choose_template(ChatTemplateName asked, const std::string& folder, const Tokenizer& tokenizer,
                               const std::string& where, bool is_runs = true);

}  // namespace mixtune
