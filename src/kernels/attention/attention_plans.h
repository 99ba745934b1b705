// cuDNN's attention plans: which serve which batches, and which are built in warm-up.
#pragma once

#include <algorithm>
#include <bit>
#include <vector>

#include "kernels/warm_up.h"

namespace mixtune {

enum class Pass { kForward, kBackward };

// What a batch needs of a plan; in a plan: the most that it serves.
struct AttentionPlanKey {
  Pass pass;
  int64_t q_heads, kv_heads, head_dim, window;
  int64_t documents, longest;  // the longest document's rows
  int64_t tokens;              // a plan's counts only in backward: its workspace has something for every row of a batch
  bool equal = false;          // a plan's: it is for just so many documents, all as long as the longest

  AttentionPlanKey(Pass the_pass, const AttentionShape& shape, const BatchLimits& limits)
      : pass(the_pass),
        q_heads(shape.q_heads),
        kv_heads(shape.kv_heads),
        head_dim(shape.head_dim),
        window(shape.window),
        documents(limits.documents),
        longest(limits.longest_document),
        tokens(limits.tokens) {}

  bool serves(const AttentionPlanKey& batch) const {
    if (pass != batch.pass || q_heads != batch.q_heads || kv_heads != batch.kv_heads || head_dim != batch.head_dim ||
        window != batch.window)
      return false;
    if (equal) return documents == batch.documents && longest == batch.longest && batch.tokens == rows();
    return documents >= batch.documents && longest >= batch.longest &&
           (pass == Pass::kForward || tokens >= batch.tokens);
  }

  // The rows that a plan starts blocks for, though those of no document end at once.
  int64_t rows() const { return documents * longest; }

  int64_t qkv_width() const { return (q_heads + 2 * kv_heads) * head_dim; }
  int64_t out_width() const { return q_heads * head_dim; }
  int64_t kv_width() const { return kv_heads * head_dim; }

  // The bytes that the backward pass takes from the stack. For each token: cuDNN's dq in fp32, as wide as it lies in
  // dqkv, and dk and dv of every query head (bf16, in fp32's room); dout . out; dk and dv. And a little for every
  // document. A plan for equal documents takes less.
  int64_t backward_bytes() const {
    return tokens * (4 * (qkv_width() + 2 * out_width() + q_heads) + 4 * kv_width()) + 512 * documents + 4096;
  }
};

constexpr int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

inline int64_t next_power_of_two(int64_t n) {
  return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(n)));
}

// The plan to build for a batch that none serves: documents up to a power of 4, lengths up to a power of 2, tokens up
// to an eighth of one.
inline AttentionPlanKey plan_around(AttentionPlanKey key) {
  const int64_t documents = next_power_of_two(key.documents);
  key.documents = std::countr_zero(static_cast<uint64_t>(documents)) % 2 == 0 ? documents : 2 * documents;
  key.longest = std::max(kRowAlignment, next_power_of_two(key.longest));
  key.tokens = round_up(key.tokens, std::max(kRowAlignment, next_power_of_two(key.tokens) / 8));
  return key;
}

// The plans for all batches within the limits. A plan takes about a second to build, so they are a coarse grid: lengths
// and numbers of documents in steps of 4 down from the largest. Pairs that cannot hold half a batch are left out: a
// batch that would take them is small, and a larger plan serves it.
inline std::vector<AttentionPlanKey> warm_up_plans(const AttentionShape& shape, const BatchLimits& limits) {
  std::vector<AttentionPlanKey> plans;
  for (const Pass pass : {Pass::kForward, Pass::kBackward}) {
    AttentionPlanKey key(pass, shape, limits);
    key.tokens = align_rows(limits.tokens);
    for (int64_t longest = limits.longest_document; longest > 0; longest = longest > kRowAlignment ? longest / 4 : 0) {
      key.longest = align_rows(longest);
      for (key.documents = limits.documents; key.documents > 0; key.documents /= 4)
        if (2 * key.rows() >= key.tokens || (longest == limits.longest_document && key.documents == limits.documents))
          plans.push_back(key);
    }
  }
  return plans;
}

// The plans for the largest batch of equal documents within the limits: rows cut to one length, or each of one
// document. cuDNN is faster there. A document that does not fill a block of the kernel gains nothing.
inline std::vector<AttentionPlanKey> warm_up_equal_plans(const AttentionShape& shape, const BatchLimits& limits) {
  const int64_t length = limits.longest_document;
  if (length < kRowAlignment || length > limits.tokens) return {};
  std::vector<AttentionPlanKey> plans;
  for (const Pass pass : {Pass::kForward, Pass::kBackward}) {
    AttentionPlanKey& key = plans.emplace_back(pass, shape, limits);
    key.documents = std::min(limits.documents, limits.tokens / length);
    key.tokens = key.rows();
    key.equal = true;
  }
  return plans;
}

}  // namespace mixtune
