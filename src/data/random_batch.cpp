#include "data/random_batch.h"

#include <algorithm>
#include <span>
#include <vector>

#include "base/random.h"

namespace mixtune {

namespace {

BatchRoom room_for(const RandomBatch::Shape& shape) {
  MT_CHECK(shape.tokens > 0 && shape.document_tokens > 0);
  return {.tokens = shape.tokens,
          .documents = (shape.tokens + shape.document_tokens - 1) / shape.document_tokens,
          .weighted = shape.weighted};
}

}  // namespace

RandomBatch::RandomBatch(const Shape& shape, uint64_t seed, HostMemory memory) : builder_(room_for(shape), memory) {
  const int64_t tokens = shape.tokens, document_tokens = shape.document_tokens;
  const uint64_t key = random_key(seed, "random batch");
  std::vector<int32_t> ids(static_cast<size_t>(std::min(tokens, document_tokens)));
  builder_.begin();
  for (int64_t begin = 0; begin < tokens; begin += document_tokens) {
    const std::span document(ids.data(), static_cast<size_t>(std::min(document_tokens, tokens - begin)));
    for (size_t i = 0; i < document.size(); ++i)
      document[i] = static_cast<int32_t>(random_below(key, begin + i, shape.vocab_size));
    builder_.add_document(document, document);
  }
  batch_ = builder_.finish();
}

}  // namespace mixtune
