// Mistral's chat templates, as mistral-common's InstructTokenizerV1, V2 and V3 have them (version 1.13):
//
//   v1  <s> "[INST] SYSTEM\n\nUSER [/INST]" "ANSWER" </s> "[INST] USER [/INST]" "ANSWER" </s>
//   v2  <s> [INST] "USER" [/INST] "ANSWER" </s> [AVAILABLE_TOOLS] "[...]" [/AVAILABLE_TOOLS] [INST] "SYSTEM\n\nUSER"
//       [/INST] [TOOL_CALLS] "[{"name": ..., "arguments": ...}]" </s> [TOOL_RESULTS] "[{"name": ..., "content": ...}]"
//       [/TOOL_RESULTS] "ANSWER" </s>
//   v3  as v2, but calls have an "id", and results are "{"content": ..., "call_id": ...}", each by itself
//
// Each stretch in quotes is encoded by itself. Tools and, from v2 on, the system's text stand with the last user's
// turn; v2 leaves out calls and results before that turn. Adjacent turns of one role are one, joined by an empty line
// (answers of which one is trained and one is not stay two); results stay apart. A conversation that an assistant
// opens starts with an empty user turn. v1 strips nothing, v2 and v3 strip the spaces that end an answer.
#pragma once

#include <string>

#include "data/record.h"
#include "data/stretch.h"

namespace mixtune {

// Renders by `version` 1, 2 or 3. A conversation for training ends with the assistant, a prompt with the user. Throws
// UserError (at `where`) for what mistral-common refuses (in its fine-tuning mode, where `for_training`), and for a
// system turn after the conversation began and for tools in v1, which it would move or drop.
Stretches render_mistral(int version, const Conversation& conversation, const Marks& marks, bool for_training,
                         const std::string& where);

}  // namespace mixtune
