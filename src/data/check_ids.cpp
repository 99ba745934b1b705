#include "data/check_ids.h"

#include <fmt/format.h>

#include "base/error.h"
#include "data/label.h"

namespace mixtune {

void check_ids(const TokenSequence& sequence, int64_t vocab_size, const std::string& where) {
  const auto refuse = [&](int32_t id, size_t i, const char* list) {
    throw UserError(where, fmt::format("{}[{}] is {}, outside the model's vocabulary of {}", list, i, id, vocab_size),
                    "use the tokenizer that belongs to this model");
  };
  for (size_t i = 0; i < sequence.ids.size(); ++i) {
    const int32_t id = sequence.ids[i], label = sequence.labels[i];
    if (id < 0 || id >= vocab_size) refuse(id, i, "input_ids");
    if (label != kIgnoreTarget && (label < 0 || label >= vocab_size)) refuse(label, i, "labels");
    if (i > 0 && label != kIgnoreTarget && label != id)
      throw UserError(where, fmt::format("labels[{}] is {}, and input_ids[{}] is {}", i, label, i, id),
                      "make a label its token, or -100 where that is not trained");
  }
}

}  // namespace mixtune
