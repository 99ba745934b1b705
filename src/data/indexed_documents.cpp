#include "data/indexed_documents.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "base/error.h"
#include "base/random.h"
#include "data/document_sink.h"
#include "data/documents_part.h"
#include "data/mask_counter.h"

namespace mixtune {

namespace {

constexpr int64_t kLengthsAtOnce = 64 << 10;  // lengths read at a time
constexpr size_t kMaskBlock = 1 << 20;        // bytes
constexpr size_t kDocumentMask = 1 << 9;      // bytes of a mask that are read for one document at a time
constexpr int64_t kSampledDocuments = 1024;   // documents whose tokens are part of the digest

}  // namespace

IndexedDocuments::IndexedDocuments(IndexedReader reader, const SequenceFit& fit, const DocumentTotals& totals,
                                   uint64_t digest)
    : reader_(std::move(reader)), fit_(fit), totals_(totals), digest_(digest) {
  MT_CHECK(fit.max_seq_length >= 2);
  read_lengths();
}

void IndexedDocuments::read_lengths() {
  const int64_t sequences = reader_.sequences();
  const bool is_short = reader_.max_length() <= std::numeric_limits<uint16_t>::max();
  is_short ? short_lengths_.resize(sequences) : long_lengths_.resize(sequences);
  std::vector<int32_t> lengths(static_cast<size_t>(std::min(kLengthsAtOnce, sequences)));
  for (int64_t first = 0; first < sequences; first += kLengthsAtOnce) {
    const auto some = std::span(lengths).first(static_cast<size_t>(std::min(kLengthsAtOnce, sequences - first)));
    reader_.lengths(first, some);
    for (size_t i = 0; i < some.size(); ++i) {
      const size_t sequence = static_cast<size_t>(first) + i;
      if (is_short)
        short_lengths_[sequence] = static_cast<uint16_t>(some[i]);
      else
        long_lengths_[sequence] = static_cast<uint32_t>(some[i]);
    }
  }
}

int64_t IndexedDocuments::pieces_of(int64_t length) const {
  if (length < 2) return 0;
  if (length <= fit_.max_seq_length || fit_.policy != LongDocuments::kSplit) return 1;
  const int64_t stride = fit_.max_seq_length - 1;
  return (length - 2) / stride + 1;
}

IndexedDocuments::Piece IndexedDocuments::piece(int64_t d) const {
  int64_t sequence = d, nth = 0;
  if (!sampled_.empty()) {
    const auto sample = std::ranges::upper_bound(sampled_, d) - sampled_.begin() - 1;
    sequence = sample * kSample;
    nth = d - sampled_[static_cast<size_t>(sample)];
    for (int64_t pieces; nth >= (pieces = pieces_of(length_of(sequence))); ++sequence) nth -= pieces;
  }
  const int64_t begin = nth * (fit_.max_seq_length - 1);
  return {sequence, begin, std::min(length_of(sequence) - begin, fit_.max_seq_length)};
}

int64_t IndexedDocuments::length(int64_t d) const {
  return piece(d).length;
}

int64_t IndexedDocuments::targets(int64_t d) const {
  const Piece p = piece(d);
  if (!reader_.has_mask()) return p.length - 1;
  std::array<uint8_t, kDocumentMask> block;
  return MaskCounter(reader_, block).count(reader_.token_begin(p.sequence) + p.begin + 1, p.length - 1);
}

int64_t IndexedDocuments::record(int64_t d) const {
  return reader_.document_of(piece(d).sequence);
}

void IndexedDocuments::read(int64_t d, std::span<int32_t> ids, std::span<int32_t> labels) const {
  const Piece p = piece(d);
  reader_.read(p.sequence, p.begin, ids.first(static_cast<size_t>(p.length)),
               labels.first(static_cast<size_t>(p.length)));
}

void IndexedDocuments::read_weights(int64_t d, std::span<float> weights) const {
  const Piece p = piece(d);
  reader_.read_weights(p.sequence, p.begin, weights.first(static_cast<size_t>(p.length)));
}

std::shared_ptr<const Documents> IndexedDocuments::open(IndexedReader reader, const SequenceFit& fit,
                                                        const std::string& name, LoadCounts& counts) {
  const auto all = std::make_shared<IndexedDocuments>(std::move(reader), fit, DocumentTotals{}, 0);
  const std::vector<int64_t> without_target = all->count(name, counts);
  const int64_t pieces = all->totals_.documents + static_cast<int64_t>(without_target.size());
  all->sample_digest(pieces);
  if (without_target.empty()) return all;
  const DocumentTotals totals = std::exchange(all->totals_, {.documents = pieces});
  BitSet set(pieces);
  for (int64_t d = 0; d < pieces; ++d) set.insert(d);
  for (const int64_t d : without_target) set.remove(d);
  return std::make_shared<DocumentsPart>(all, std::move(set), totals);
}

// Counts everything in the order of the files. Returns the pieces without a target.
std::vector<int64_t> IndexedDocuments::count(const std::string& name, LoadCounts& counts) {
  std::vector<uint8_t> block(reader_.has_mask() ? kMaskBlock : 0);
  MaskCounter mask(reader_, block);
  std::vector<int64_t> without_target, sampled;
  bool one_each = true;
  int64_t piece = 0, token = 0;
  for (int64_t sequence = 0; sequence < reader_.sequences(); ++sequence) {
    const int64_t length = length_of(sequence), pieces = pieces_of(length);
    if (sequence % kSample == 0) sampled.push_back(piece);
    one_each &= pieces == 1;
    if (length > fit_.max_seq_length) {
      fit_.check(length, fmt::format("{}, sequence {}", name, sequence));
      ++(fit_.policy == LongDocuments::kSplit ? counts.split : counts.truncated);
    }
    counts.dropped += pieces == 0;
    digest_ = random_bits(digest_, static_cast<uint64_t>(length));
    for (int64_t nth = 0; nth < pieces; ++nth, ++piece) {
      const int64_t begin = nth * (fit_.max_seq_length - 1), count = std::min(length - begin, fit_.max_seq_length);
      const int64_t targets = reader_.has_mask() ? mask.count(token + begin + 1, count - 1) : count - 1;
      if (targets == 0) {
        without_target.push_back(piece);
        continue;
      }
      ++totals_.documents;
      totals_.tokens += count;
      totals_.targets += targets;
      totals_.max_length = std::max(totals_.max_length, count);
    }
    token += length;
  }
  counts.dropped += static_cast<int64_t>(without_target.size()) + reader_.empty_documents();
  counts.records = totals_.records = reader_.documents();
  totals_.weighted = reader_.has_weights();
  if (!one_each) sampled_ = std::move(sampled);
  return without_target;
}

// Adds the tokens of some documents all over the data to the digest: there are too many to read them all.
void IndexedDocuments::sample_digest(int64_t pieces) {
  for (int64_t i = 0; i < std::min(pieces, kSampledDocuments); ++i) {
    const int64_t d = pieces <= kSampledDocuments ? i : i * (pieces / kSampledDocuments);
    const auto [ids, labels, weights] = read_document(*this, d);
    for (size_t t = 1; t < ids.size(); ++t)
      digest_ = add_token(digest_, {ids[t], labels[t], weights.empty() ? 1 : weights[t]});
  }
  digest_ = random_bits(digest_, static_cast<uint64_t>(totals_.records));
}

}  // namespace mixtune
