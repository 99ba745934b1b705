#include "data/random_batch.h"

#include <algorithm>
#include <vector>

#include "base/random.h"

namespace mixtune {

namespace {

constexpr int64_t round_up(int64_t tokens) {
  return (tokens + kRowAlignment - 1) / kRowAlignment * kRowAlignment;
}

constexpr size_t kTensors = 9;

}  // namespace

RandomBatch::RandomBatch(int64_t tokens, int64_t document_tokens, int64_t vocab_size, uint64_t seed, HostMemory memory,
                         bool weighted)
    : arena_("random batch", Device{}, kTensors * align_up((round_up(tokens) + 1) * sizeof(int32_t)), memory) {
  MT_CHECK(tokens > 0 && document_tokens > 0);
  const int64_t rows = round_up(tokens), documents = (tokens + document_tokens - 1) / document_tokens;
  const auto allocate = [&](const char* name, int64_t n) {
    return arena_.allocate(name, {n}, DType::kI32);
  };
  batch_ = {.ids = allocate("ids", rows),
            .positions = allocate("positions", rows),
            .target_rows = allocate("target rows", tokens - documents),
            .targets = allocate("targets", tokens - documents),
            .doc_offsets = allocate("document offsets", documents + 1),
            .live_tokens = tokens,
            .step_tokens = tokens};
  batch_.host_doc_offsets = batch_.doc_offsets;
  if (weighted) {
    batch_.weights = arena_.allocate("weights", {tokens - documents}, DType::kF32);
    std::fill_n(batch_.weights.as<float>(), tokens - documents, 1.0F);
  }
  const uint64_t key = random_key(seed, "random batch");
  int32_t* ids = batch_.ids.as<int32_t>();
  for (int64_t t = 0; t < tokens; ++t) ids[t] = static_cast<int32_t>(random_below(key, t, vocab_size));
  int64_t target = 0;
  for (int64_t d = 0; d < documents; ++d) {
    const int64_t begin = d * document_tokens, end = std::min(tokens, begin + document_tokens);
    batch_.doc_offsets.as<int32_t>()[d + 1] = static_cast<int32_t>(end);
    for (int64_t t = begin; t < end; ++t) {
      batch_.positions.as<int32_t>()[t] = static_cast<int32_t>(t - begin);
      if (t + 1 == end) continue;
      batch_.target_rows.as<int32_t>()[target] = static_cast<int32_t>(t);
      batch_.targets.as<int32_t>()[target++] = ids[t + 1];
    }
  }
  std::vector<uint64_t> sorted(tokens);
  batch_.rows_by_id =
      index_ids(batch_.ids.slice(0, tokens),
                {allocate("ids by id", tokens), allocate("begins by id", tokens + 1), allocate("rows by id", tokens)},
                sorted.data());
}

}  // namespace mixtune
