#include "data/documents_part.h"

#include <utility>

#include "base/random.h"

namespace mixtune {

DocumentsPart::DocumentsPart(std::shared_ptr<const Documents> all, BitSet set, const DocumentTotals& totals)
    : all_(std::move(all)), set_(std::move(set)), totals_(totals) {
  set_.index();
}

uint64_t DocumentsPart::digest() const {
  return random_bits(all_->digest(), set_.digest());
}

}  // namespace mixtune
