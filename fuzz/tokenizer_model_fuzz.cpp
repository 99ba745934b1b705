// Any bytes as a tokenizer.model: refused with a UserError, or one that sentencepiece loads and uses without harm.
#include <sentencepiece_processor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "data/tokenizer_model.h"

using namespace mixtune;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view proto(reinterpret_cast<const char*>(data), size);
  try {
    check_tokenizer_model(proto, "fuzz");
  } catch (const UserError&) {
    return 0;
  }
  sentencepiece::SentencePieceProcessor processor;
  if (size == 0 || !processor.LoadFromSerializedProto(proto).ok()) return 0;
  std::vector<int> ids;
  for (const std::string_view text : {std::string_view("abababab a\xc3\xa9\xef\xbc\xa1 \xff\0\x01 <s>", 24), proto}) {
    if (!processor.Encode(text, &ids).ok()) continue;
    std::string decoded;
    processor.Decode(ids, &decoded).IgnoreError();
  }
  return 0;
}
