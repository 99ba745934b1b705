#include "data/random_batch.h"

#include <algorithm>
#include <span>
#include <vector>

#include "base/random.h"

namespace mixtune {

namespace {

BatchRoom room_for(int64_t tokens, int64_t document_tokens, bool weighted) {
  MT_CHECK(tokens > 0 && document_tokens > 0);
  return {.tokens = tokens, .documents = (tokens + document_tokens - 1) / document_tokens, .weighted = weighted};
}

}  // namespace

RandomBatch::RandomBatch(int64_t tokens, int64_t document_tokens, int64_t vocab_size, uint64_t seed, HostMemory memory,
                         bool weighted)
    : builder_(room_for(tokens, document_tokens, weighted), memory) {
  const uint64_t key = random_key(seed, "random batch");
  std::vector<int32_t> ids(static_cast<size_t>(std::min(tokens, document_tokens)));
  builder_.begin();
  for (int64_t begin = 0; begin < tokens; begin += document_tokens) {
    const std::span document(ids.data(), static_cast<size_t>(std::min(document_tokens, tokens - begin)));
    for (size_t i = 0; i < document.size(); ++i)
      document[i] = static_cast<int32_t>(random_below(key, begin + i, vocab_size));
    builder_.add_document(document, document);
  }
  batch_ = builder_.finish();
}

}  // namespace mixtune
