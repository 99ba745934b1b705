#include "data/indexed_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <filesystem>
#include <limits>
#include <optional>

#include "base/error.h"
#include "data/batch.h"
#include "data/label.h"
#include "data/weights.h"

namespace mixtune {

namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "the files are little-endian");

constexpr size_t kBlockBytes = size_t{1} << 20;

template <class Value>
std::span<const std::byte> bytes_of(const Value& value) {
  return std::as_bytes(std::span(&value, 1));
}

IndexedPaths free_paths(const std::string& prefix, Existing existing) {
  IndexedPaths paths(prefix);
  for (const std::string& path : paths.all())
    if (existing == Existing::kRefused && is_taken(path))
      throw UserError(printable(path, 200), "exists already", "remove it, or choose another prefix");
  return paths;
}

}  // namespace

void IndexedWriter::Part::write(std::span<const std::byte> bytes) {
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  if (buffer_.size() >= kBlockBytes) flush();
}

void IndexedWriter::Part::flush() {
  file_.write(buffer_);
  buffer_.clear();
}

void IndexedWriter::Part::finish() {
  flush();
  file_.finish();
}

void IndexedWriter::Part::commit(Existing existing) {
  existing == Existing::kReplaced ? staged_.commit() : staged_.commit_new();
}

IndexedWriter::IndexedWriter(const std::string& prefix, int64_t vocab_size, Existing existing)
    : prefix_(prefix),
      paths_(free_paths(prefix, existing)),
      existing_(existing),
      vocab_size_(vocab_size),
      type_(token_type_for(vocab_size)),
      bin_(paths_.bin),
      lengths_(prefix + ".lengths"),
      document_indices_(prefix + ".documents"),
      mask_bits_(prefix + ".mask-bits") {
  document_indices_.write(bytes_of(int64_t{0}));
}

void IndexedWriter::append(std::span<const int32_t> ids, std::span<const int32_t> labels,
                           std::span<const float> weights) {
  MT_CHECK(weights.empty() || weights.size() == ids.size());
  MT_CHECK(ids.size() == labels.size() && ids.size() <= std::numeric_limits<int32_t>::max());
  MT_CHECK(std::ranges::all_of(ids, [&](int32_t id) { return id >= 0 && id < vocab_size_; }));
  for (size_t i = 1; i < ids.size(); ++i)
    if (labels[i] != ids[i] && labels[i] != kIgnoreTarget)
      throw UserError(
          printable(prefix_, 200),
          fmt::format("labels[{}] of document {} is {} where the token is {}: indexed data only says of a token "
                      "whether it is trained",
                      i, sequences_ + 1, labels[i], ids[i]),
          "write JSONL instead");
  write_ids(ids);
  write_mask(ids, labels);
  write_weights(labels, weights);
  lengths_.write(bytes_of(static_cast<int32_t>(ids.size())));
  ++sequences_;
  tokens_ += static_cast<int64_t>(ids.size());
}

void IndexedWriter::write_ids(std::span<const int32_t> ids) {
  if (type_ == TokenType::kI32) return bin_.write(std::as_bytes(ids));
  std::array<uint16_t, 4096> block;
  while (!ids.empty()) {
    const auto some = ids.first(std::min(block.size(), ids.size()));
    std::ranges::transform(some, block.begin(), [](int32_t id) { return static_cast<uint16_t>(id); });
    bin_.write(std::as_bytes(std::span(block).first(some.size())));
    ids = ids.subspan(some.size());
  }
}

void IndexedWriter::write_mask(std::span<const int32_t> ids, std::span<const int32_t> labels) {
  for (size_t i = 0; i < ids.size(); ++i) {
    const int64_t bit = (tokens_ + static_cast<int64_t>(i)) % 8;
    const bool trained = i == 0 || labels[i] == ids[i];
    all_trained_ &= trained;
    mask_byte_ = static_cast<uint8_t>(mask_byte_ | (trained << bit));
    if (bit < 7) continue;
    mask_bits_.write(bytes_of(mask_byte_));
    mask_byte_ = 0;
  }
}

// Ones for all tokens before the first weight that is not 1 are written when that comes.
void IndexedWriter::write_weights(std::span<const int32_t> labels, std::span<const float> weights) {
  const auto weight = [&](size_t i) {
    return i == 0 || weights.empty() || labels[i] == kIgnoreTarget ? 1.0F : weights[i];
  };
  if (!weights_) {
    size_t i = 0;
    while (i < weights.size() && weight(i) == 1) ++i;
    if (i == weights.size()) return;
    weights_.emplace(prefix_ + ".token-weights");
    for (int64_t token = 0; token < tokens_; ++token) weights_->write(bytes_of(1.0F));
  }
  for (size_t i = 0; i < labels.size(); ++i) {
    MT_CHECK(is_weight(weight(i)));
    weights_->write(bytes_of(weight(i)));
  }
}

void IndexedWriter::end_document() {
  document_indices_.write(bytes_of(sequences_));
  ended_sequences_ = sequences_;
  ++documents_;
}

void IndexedWriter::finish() {
  MT_CHECK(ended_sequences_ == sequences_);
  bin_.finish();
  std::optional<Part> mask;
  if (!all_trained_) write_mask_file(mask.emplace(paths_.mask));
  std::optional<Part> weights;
  if (weights_) write_weights_file(weights.emplace(paths_.weights));
  Part idx(paths_.idx);
  write_idx(idx);

  // Old files go in the reverse order, so that no .idx ever stands beside a file of another data set.
  if (existing_ == Existing::kReplaced)
    for (const std::string& path : {paths_.idx, paths_.mask, paths_.weights})
      if (is_taken(path)) remove_whole(path);
  bin_.commit(existing_);
  if (mask) mask->commit(existing_);
  if (weights) weights->commit(existing_);
  idx.commit(existing_);
}

void IndexedWriter::write_mask_file(Part& mask) {
  mask.write(std::as_bytes(std::span(kMaskMagic)));
  mask.write(bytes_of(kMaskVersion));
  mask.write(bytes_of(tokens_));
  if (tokens_ % 8 != 0) mask_bits_.write(bytes_of(mask_byte_));
  copy_to(mask, mask_bits_);
  mask.finish();
}

void IndexedWriter::write_weights_file(Part& weights) {
  weights.write(std::as_bytes(std::span(kWeightsMagic)));
  weights.write(bytes_of(kWeightsVersion));
  weights.write(bytes_of(tokens_));
  copy_to(weights, *weights_);
  weights.finish();
}

void IndexedWriter::write_idx(Part& idx) {
  idx.write(std::as_bytes(std::span(kIndexMagic)));
  idx.write(bytes_of(kIndexVersion));
  idx.write(bytes_of(type_));
  idx.write(bytes_of(sequences_));
  idx.write(bytes_of(documents_ + 1));
  copy_to(idx, lengths_);
  write_pointers(idx);
  copy_to(idx, document_indices_);
  idx.finish();
}

void IndexedWriter::copy_to(Part& to, Part& from) {
  from.flush();
  const InputFile file(from.path());
  std::vector<std::byte> block;
  for (uint64_t begin = 0; begin < file.size(); begin += block.size()) {
    block.resize(std::min<uint64_t>(kBlockBytes, file.size() - begin));
    file.read(begin, block);
    to.write(block);
  }
}

void IndexedWriter::write_pointers(Part& idx) {
  const InputFile file(lengths_.path());
  std::vector<int32_t> lengths;
  int64_t pointer = 0;
  for (uint64_t begin = 0; begin < file.size(); begin += lengths.size() * sizeof(int32_t)) {
    lengths.resize(std::min<uint64_t>(kBlockBytes, file.size() - begin) / sizeof(int32_t));
    file.read(begin, std::as_writable_bytes(std::span(lengths)));
    for (const int32_t length : lengths) {
      idx.write(bytes_of(pointer));
      pointer += length * token_bytes(type_);
    }
  }
}

}  // namespace mixtune
