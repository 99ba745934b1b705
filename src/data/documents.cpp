#include "data/documents.h"

#include <algorithm>
#include <numeric>

namespace mixtune {

namespace {

std::vector<float> weights_of(const Documents& documents, int64_t d) {
  std::vector<float> weights(static_cast<size_t>(documents.length(d)));
  documents.read_weights(d, weights);
  return weights;
}

template <class Value>
bool same_after_first(const std::vector<Value>& a, const std::vector<Value>& b) {
  return std::ranges::equal(std::span(a).subspan(1), std::span(b).subspan(1));
}

}  // namespace

Document read_document(const Documents& documents, int64_t d) {
  const auto length = static_cast<size_t>(documents.length(d));
  Document document{std::vector<int32_t>(length), std::vector<int32_t>(length), {}};
  documents.read(d, document.ids, document.labels);
  if (documents.totals().weighted) document.weights = weights_of(documents, d);
  return document;
}

double target_weight(std::span<const float> weights) {
  return std::accumulate(weights.begin() + 1, weights.end(), 0.0);
}

bool same_documents(const Documents& a, const Documents& b) {
  DocumentTotals of_a = a.totals();
  of_a.weighted = b.totals().weighted;  // a weight may be there: the documents tell
  if (of_a != b.totals()) return false;
  for (int64_t d = 0; d < a.size(); ++d) {
    if (a.record(d) != b.record(d) || a.targets(d) != b.targets(d) || a.length(d) != b.length(d)) return false;
    const Document from_a = read_document(a, d), from_b = read_document(b, d);
    if (from_a.ids != from_b.ids || !same_after_first(from_a.labels, from_b.labels) ||
        !same_after_first(weights_of(a, d), weights_of(b, d)))
      return false;
  }
  return true;
}

}  // namespace mixtune
