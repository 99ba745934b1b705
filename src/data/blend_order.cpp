#include "data/blend_order.h"

#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/random.h"
#include "data/blend.h"

namespace mixtune {

namespace {

// The documents of one part, pass after pass.
class PartOrder {
 public:
  PartOrder(uint32_t begin, const BlendPart& part, bool shuffle, uint64_t key)
      : documents_(static_cast<size_t>(part.documents)), shuffle_(shuffle), key_(key) {
    std::iota(documents_.begin(), documents_.end(), begin);
  }

  uint32_t at(int64_t sample) {
    const auto size = static_cast<int64_t>(documents_.size());
    if (sample % size == 0 && shuffle_) shuffle(static_cast<uint64_t>(sample / size));
    return documents_[static_cast<size_t>(sample % size)];
  }

 private:
  // Fisher-Yates.
  void shuffle(uint64_t pass) {
    const uint64_t key = random_bits(key_, pass);
    for (size_t n = documents_.size(); n > 1; --n) std::swap(documents_[n - 1], documents_[random_below(key, n, n)]);
  }

  std::vector<uint32_t> documents_;
  bool shuffle_;
  uint64_t key_;
};

}  // namespace

std::vector<uint32_t> blend_order(std::span<const BlendPart> parts, bool shuffle, uint64_t seed) {
  std::vector<PartOrder> orders;
  std::vector<double> weights;
  int64_t documents = 0;
  for (const BlendPart& part : parts) {
    MT_CHECK(part.documents > 0);
    orders.emplace_back(static_cast<uint32_t>(documents), part, shuffle, random_bits(seed, orders.size()));
    weights.push_back(part.weight);
    documents += part.documents;
  }
  Blend blend = Blend::of_weights(weights, "datasets");
  std::vector<uint32_t> order(static_cast<size_t>(documents));
  for (uint32_t& document : order) {
    const BlendSample next = blend.next();
    document = orders[static_cast<size_t>(next.data_set)].at(next.sample);
  }
  return order;
}

}  // namespace mixtune
