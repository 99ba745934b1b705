// Which chat template a run uses: the one of the tokeniser's folder, or the one that is asked for.
#pragma once

#include <string>

#include "data/chat_template.h"

namespace mixtune {

struct ChosenTemplate {
  ChatTemplate chat_template;
  std::string why;          // for the user
  std::string source;       // Jinja text, for a checkpoint that is trained with it
  bool is_folders = false;  // the folder has this source
};

// `asked`: kAuto takes what the folder says, in chat_template.jinja, or else as chat_template in tokenizer_config.json
// (of several that of the name "default"), by its text; of Mistral's templates the tokeniser tells the version: [INST]
// as a control token is v3, in a model file named .v2 it is v2, and else v1; that decides too where the folder has no
// template. Another name than the folder's is taken with a warning.
//
// `is_runs`: for the run, whose checkpoints have it, and not for one of its data sets, which warns of nothing.
// `folder`: that of the tokeniser, or a file in it. `where`: what to name for the setting. Throws UserError for a
// template that is not known (with its first difference to the nearest known one), one that is not supported, and one
// whose control tokens the tokeniser lacks.
ChosenTemplate choose_template(ChatTemplateName asked, const std::string& folder, const Tokenizer& tokenizer,
                               const std::string& where, bool is_runs = true);

}  // namespace mixtune
