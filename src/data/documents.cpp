#include "data/documents.h"

#include <algorithm>

namespace mixtune {

Document read_document(const Documents& documents, int64_t d) {
  const auto length = static_cast<size_t>(documents.length(d));
  Document document{std::vector<int32_t>(length), std::vector<int32_t>(length)};
  documents.read(d, document.ids, document.labels);
  return document;
}

bool same_documents(const Documents& a, const Documents& b) {
  if (a.totals() != b.totals()) return false;
  for (int64_t d = 0; d < a.size(); ++d) {
    if (a.record(d) != b.record(d) || a.targets(d) != b.targets(d) || a.length(d) != b.length(d)) return false;
    const Document of_a = read_document(a, d), of_b = read_document(b, d);
    if (of_a.ids != of_b.ids ||
        !std::ranges::equal(std::span(of_a.labels).subspan(1), std::span(of_b.labels).subspan(1)))
      return false;
  }
  return true;
}

}  // namespace mixtune
