// Decoder: a model that goes on with sequences of tokens.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/batch_builder.h"
#include "model/instance.h"
#include "train/run_adapters.h"

namespace mixtune {

// Computes each token once: the keys and values of those before it are kept.
//
// Of several ranks (options.ranks), each has a decoder with sequences of its own, and hold the experts between them. So
// they compute together: all call extend or logits as often, a rank that has nothing to compute extends by nothing.
class Decoder {
 public:
  // Reads these weights. `room` is taken now, for as long as the decoder lives; a rank may have none.
  Decoder(const MixtralConfig& config, const ModelPaths& paths, const CacheRoom& room, const InstanceOptions& options);

  // Appends to sequences, no two of them one, at least one token each; on several ranks also to none. Returns [V]
  // logits after the last token of each, one behind the other.
  struct Extension {
    int64_t sequence;
    std::span<const int32_t> ids;
  };
  std::vector<float> extend(std::span<const Extension> extensions);
  // Forgets all but the first `tokens` of a sequence, which has as many.
  void cut(int64_t sequence, int64_t tokens);
  // The number of tokens of a sequence: 0 at first.
  int64_t length(int64_t sequence) const { return lengths_[static_cast<size_t>(sequence)]; }

  const CacheRoom& room() const { return instance_.options().cache; }
  int64_t vocab_size() const { return instance_.model().config().vocab_size; }

  // [T, V] logits after each token of a document that is no sequence, and not longer than a sequence may be.
  std::vector<float> logits(std::span<const int32_t> ids);

  const Ranks& ranks() const { return instance_.ranks(); }
  // Whether any rank says so. All ranks call this.
  bool any(bool here);
  // Every rank's text, in the order of ranks. All ranks call this.
  std::vector<std::string> gather(const std::string& text);

 private:
  // h [T, H] after the last layer; pushed.
  Tensor forward(const Batch& batch);
  std::vector<float> head(const Tensor& h);

  Instance instance_;
  Saved saved_;
  BatchBuilder builder_;
  std::vector<int64_t> lengths_;
};

}  // namespace mixtune
