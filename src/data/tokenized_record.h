// parse_tokenized: records of format `tokenized`.
#pragma once

#include "data/fields.h"
#include "data/record.h"
#include "data/unread_keys.h"

namespace mixtune {

// Parses a row of token ids: one document, or those that `position_ids`, `seq_lengths` or an `attention_mask` that
// numbers them tell apart. A token is trained where `labels` and every mask (`loss_mask`, `completion_mask`,
// `assistant_masks`) say so, with the weight that `loss_mask` has for it. Padding, where `attention_mask` is 0 at the
// front or the end, is left out. Throws UserError where these do not agree, or a label is neither its token nor
// kIgnoreTarget.
TokenizedRecord parse_tokenized(const Fields& record, UnreadKeys& unread);

}  // namespace mixtune
