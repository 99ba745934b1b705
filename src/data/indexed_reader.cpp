#include "data/indexed_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/staged.h"
#include "data/batch.h"
#include "data/label.h"
#include "data/weights.h"

namespace mixtune {

namespace {

static_assert(std::endian::native == std::endian::little, "the files are little-endian");

constexpr int64_t kEntriesAtOnce = 64 << 10;  // index entries read at a time

[[noreturn]] void refuse(const InputFile& file, const std::string& what,
                         std::string_view mend = "write the data set again") {
  throw UserError(printable(file.path(), 200), what, mend);
}

template <class Value>
Value read_value(const InputFile& file, uint64_t byte) {
  Value value{};
  file.read(byte, std::as_writable_bytes(std::span(&value, 1)));
  return value;
}

template <class Value>
void read_values(const InputFile& file, uint64_t byte, std::span<Value> values) {
  file.read(byte, std::as_writable_bytes(values));
}

std::optional<InputFile> open_if_there(const std::string& path) {
  if (!is_taken(path)) return {};
  return InputFile(path);
}

// A file beside the tokens: its header, and the bytes after that.
struct BesideTokens {
  const char* what;
  std::string_view magic;
  uint64_t version, tokens, bytes;
  std::string_view mend;
};

static_assert(kMaskHeaderBytes == kWeightsHeaderBytes);
void check_header(const InputFile& file, const BesideTokens& expected) {
  if (file.size() < kMaskHeaderBytes || file.read(0, expected.magic.size()) != expected.magic)
    refuse(file, fmt::format("is not a {} (it does not begin with {})", expected.what, expected.magic.data()),
           expected.mend);
  const auto version = read_value<uint64_t>(file, 8), tokens = read_value<uint64_t>(file, 16);
  if (version != expected.version)
    refuse(file, fmt::format("has version {}, not {}", version, expected.version), expected.mend);
  if (tokens != expected.tokens)
    refuse(file, fmt::format("is of {} tokens, the data set of {}", tokens, expected.tokens), expected.mend);
  if (file.size() - kMaskHeaderBytes != expected.bytes)
    refuse(file, fmt::format("has {} bytes, not {}", file.size(), kMaskHeaderBytes + expected.bytes), expected.mend);
}

constexpr std::string_view kWeightsMend = "write the data set again, or remove the weights to count every token alike";
constexpr std::string_view kBothMend = "a data set is PREFIX.idx and PREFIX.bin: check that both are there";

TokenType checked_type(const InputFile& file, uint8_t code) {
  switch (static_cast<TokenType>(code)) {
    case TokenType::kU8:
    case TokenType::kI8:
    case TokenType::kI16:
    case TokenType::kI32:
    case TokenType::kI64:
    case TokenType::kU16:
      return static_cast<TokenType>(code);
  }
  if (code == 6 || code == 7) refuse(file, "says that the tokens are floating-point numbers", "give one of token ids");
  refuse(file, fmt::format("has the token type {}, which nobody knows", code));
}

}  // namespace

IndexedInputs open_indexed(const std::string& prefix) {
  const IndexedPaths paths(prefix);
  return {InputFile(paths.idx, kBothMend), InputFile(paths.bin, kBothMend), open_if_there(paths.mask),
          open_if_there(paths.weights)};
}

IndexedReader::IndexedReader(IndexedInputs files, int64_t vocab_size)
    : files_(std::move(files)), vocab_size_(vocab_size) {
  read_header();
  check_sequences();
  check_documents();
  if (has_mask()) check_mask();
  if (has_weights()) check_weights();
}

void IndexedReader::read_header() {
  const InputFile& idx = files_.idx;
  if (idx.size() < kIndexHeaderBytes || idx.read(0, kIndexMagic.size()) != kIndexMagic)
    refuse(idx, "is not an index of Megatron's (it does not begin with MMIDIDX)", "give the prefix of a .bin and .idx");
  const auto version = read_value<uint64_t>(idx, 9);
  if (version != kIndexVersion) refuse(idx, fmt::format("has version {}, not {}", version, kIndexVersion));
  type_ = checked_type(idx, read_value<uint8_t>(idx, 17));

  const auto sequences = read_value<uint64_t>(idx, 18), indices = read_value<uint64_t>(idx, 26);
  const uint64_t room = idx.size() - kIndexHeaderBytes;
  if (indices == 0) refuse(idx, "has no document index: the first should be 0");
  if (sequences > room / 12 || indices > (room - 12 * sequences) / 8)
    refuse(idx, fmt::format("has {} bytes, too few for {} sequences and {} document indices", idx.size(), sequences,
                            indices));
  const uint64_t rest = room - 12 * sequences - 8 * indices;
  if (rest != 0 && rest == sequences)
    refuse(idx, "has modes of its sequences (multimodal data), which are not supported", "give a data set of text");
  if (rest != 0)
    refuse(idx,
           fmt::format("has {} bytes more than {} sequences and {} document indices take", rest, sequences, indices));
  sequences_ = static_cast<int64_t>(sequences);
  documents_ = static_cast<int64_t>(indices) - 1;
}

void IndexedReader::check_sequences() {
  const InputFile& idx = files_.idx;
  std::vector<int32_t> lengths(static_cast<size_t>(std::min(kEntriesAtOnce, sequences_)));
  std::vector<int64_t> pointers(lengths.size());
  const auto bin_bytes = static_cast<int64_t>(files_.bin.size());
  int64_t byte = 0;
  for (int64_t first = 0; first < sequences_; first += kEntriesAtOnce) {
    const auto count = static_cast<size_t>(std::min(kEntriesAtOnce, sequences_ - first));
    this->lengths(first, std::span(lengths).first(count));
    read_values(idx, pointer_byte(first), std::span(pointers).first(count));
    for (size_t i = 0; i < count; ++i) {
      const int64_t sequence = first + static_cast<int64_t>(i), length = lengths[i];
      if (length < 0) refuse(idx, fmt::format("sequence {} has the length {}", sequence, length));
      if (pointers[i] != byte)
        refuse(idx, fmt::format("sequence {} begins at byte {} where the one before ends at {}", sequence, pointers[i],
                                byte));
      min_length_ = sequence == 0 ? length : std::min(min_length_, length);
      max_length_ = std::max(max_length_, length);
      byte += length * token_bytes(type_);
      if (byte > bin_bytes)
        refuse(files_.bin,
               fmt::format("has {} bytes, but sequence {} of its index ends at {}", bin_bytes, sequence, byte));
    }
  }
  if (byte != bin_bytes)
    refuse(files_.bin, fmt::format("has {} bytes, but its index is of {}", bin_bytes, byte),
           "give a .bin and a .idx that belong together");
  tokens_ = byte / token_bytes(type_);
}

void IndexedReader::check_documents() {
  const InputFile& idx = files_.idx;
  std::vector<int64_t> begins(static_cast<size_t>(std::min(kEntriesAtOnce, documents_ + 1)));
  sequence_places_ = BitSet(documents_ + sequences_);
  int64_t last = 0;
  for (int64_t first = 0; first <= documents_; first += kEntriesAtOnce) {
    const auto count = static_cast<size_t>(std::min(kEntriesAtOnce, documents_ + 1 - first));
    read_values(idx, document_byte(first), std::span(begins).first(count));
    if (first == 0 && begins[0] != 0) refuse(idx, fmt::format("its first document index is {}, not 0", begins[0]));
    for (size_t i = 0; i < count; ++i) {
      const int64_t document = first + static_cast<int64_t>(i);
      if (begins[i] < last || begins[i] > sequences_)
        refuse(idx, fmt::format("document index {} is {}, after {} and of {} sequences", document, begins[i], last,
                                sequences_));
      empty_documents_ += document > 0 && begins[i] == last;
      for (; last < begins[i]; ++last) sequence_places_.insert(last + document);  // of the document before
    }
  }
  if (last != sequences_) refuse(idx, fmt::format("its documents end at sequence {} of {}", last, sequences_));
  sequence_places_.index();
}

void IndexedReader::check_mask() const {
  const InputFile& mask = *files_.mask;
  constexpr std::string_view kMend = "write the data set again, or remove the mask to train every token";
  const auto tokens = static_cast<uint64_t>(tokens_);
  check_header(mask, {"mask", kMaskMagic, kMaskVersion, tokens, (tokens + 7) / 8, kMend});
  if (tokens % 8 != 0 && read_value<uint8_t>(mask, mask.size() - 1) >> (tokens % 8) != 0)
    refuse(mask, "has bits after its last token", kMend);
}

void IndexedReader::check_weights() const {
  const auto tokens = static_cast<uint64_t>(tokens_);
  check_header(*files_.weights,
               {"file of weights", kWeightsMagic, kWeightsVersion, tokens, sizeof(float) * tokens, kWeightsMend});
}

void IndexedReader::lengths(int64_t first, std::span<int32_t> lengths) const {
  MT_CHECK(first >= 0 && first <= sequences_ && static_cast<int64_t>(lengths.size()) <= sequences_ - first);
  read_values(files_.idx, kIndexHeaderBytes + 4 * static_cast<uint64_t>(first), lengths);
}

// The index was checked on opening: a part that does not fit now has changed since.
void IndexedReader::check_still(bool fits) const {
  if (!fits) files_.idx.check_unchanged();
  MT_CHECK(fits);
}

int64_t IndexedReader::length(int64_t sequence) const {
  int32_t length = 0;
  lengths(sequence, {&length, 1});
  check_still(length >= 0);
  return length;
}

IndexedReader::Extent IndexedReader::extent(int64_t sequence) const {
  const int64_t length = this->length(sequence);
  const auto byte = read_value<int64_t>(files_.idx, pointer_byte(sequence));
  const Extent extent{byte / token_bytes(type_), length};
  check_still(byte >= 0 && extent.begin <= tokens_ - length);
  return extent;
}

int64_t IndexedReader::document_begin(int64_t document) const {
  MT_CHECK(document >= 0 && document <= documents_);
  const auto begin = read_value<int64_t>(files_.idx, document_byte(document));
  check_still(begin >= 0 && begin <= sequences_);
  return begin;
}

int64_t IndexedReader::document_of(int64_t sequence) const {
  MT_CHECK(sequence >= 0 && sequence < sequences_);
  const bool one_each = sequences_ == documents_ && empty_documents_ == 0;
  return one_each ? sequence : sequence_places_.select(sequence) - sequence - 1;
}

void IndexedReader::read(int64_t sequence, int64_t begin, std::span<int32_t> ids, std::span<int32_t> labels) const {
  const Extent all = extent(sequence);
  MT_CHECK(begin >= 0 && begin <= all.length && static_cast<int64_t>(ids.size()) <= all.length - begin);
  MT_CHECK(labels.empty() || labels.size() == ids.size());
  const int64_t token = all.begin + begin;
  switch (type_) {
    case TokenType::kU8:
      read_ids<uint8_t>(token, ids);
      break;
    case TokenType::kI8:
      read_ids<int8_t>(token, ids);
      break;
    case TokenType::kI16:
      read_ids<int16_t>(token, ids);
      break;
    case TokenType::kI32:
      read_ids<int32_t>(token, ids);
      break;
    case TokenType::kI64:
      read_ids<int64_t>(token, ids);
      break;
    case TokenType::kU16:
      read_ids<uint16_t>(token, ids);
      break;
  }
  if (labels.empty()) return;
  std::ranges::copy(ids, labels.begin());
  mask(token, labels, kIgnoreTarget);
}

template <class Stored>
void IndexedReader::read_ids(int64_t token, std::span<int32_t> ids) const {
  std::array<Stored, 4096> block;
  while (!ids.empty()) {
    const auto some = std::span(block).first(std::min(block.size(), ids.size()));
    read_values(files_.bin, static_cast<uint64_t>(token) * sizeof(Stored), some);
    for (size_t i = 0; i < some.size(); ++i) {
      if (std::cmp_less(some[i], 0) || std::cmp_greater_equal(some[i], vocab_size_))
        refuse(files_.bin,
               fmt::format("token {} is {}, outside the model's vocabulary of {}", token + static_cast<int64_t>(i),
                           some[i], vocab_size_),
               "use the tokenizer that belongs to this model");
      ids[i] = static_cast<int32_t>(some[i]);
    }
    ids = ids.subspan(some.size());
    token += static_cast<int64_t>(some.size());
  }
}

void IndexedReader::mask_bytes(int64_t first, std::span<uint8_t> bytes) const {
  MT_CHECK(has_mask() && first >= 0 && first + static_cast<int64_t>(bytes.size()) <= (tokens_ + 7) / 8);
  read_values(*files_.mask, kMaskHeaderBytes + static_cast<uint64_t>(first), bytes);
}

void IndexedReader::read_weights(int64_t sequence, int64_t begin, std::span<float> weights) const {
  const Extent all = extent(sequence);
  MT_CHECK(begin >= 0 && begin <= all.length && static_cast<int64_t>(weights.size()) <= all.length - begin);
  const int64_t token = all.begin + begin;
  std::ranges::fill(weights, 1.0F);
  if (has_weights())
    read_values(*files_.weights, kWeightsHeaderBytes + sizeof(float) * static_cast<uint64_t>(token), weights);
  for (size_t i = 0; i < weights.size(); ++i)
    if (!is_weight(weights[i]))
      refuse(*files_.weights,
             fmt::format("token {} weighs {}: weights are from {} to {}", token + static_cast<int64_t>(i), weights[i],
                         kMinWeight, kMaxWeight),
             kWeightsMend);
  mask(token, weights, 0.0F);
}

template <class Value>
void IndexedReader::mask(int64_t token, std::span<Value> values, Value untrained) const {
  if (!has_mask()) return;
  std::array<uint8_t, 4096> block;
  while (!values.empty()) {
    const int64_t first_bit = token % 8;
    const auto count = std::min(values.size(), block.size() * 8 - static_cast<size_t>(first_bit));
    const auto bytes = (static_cast<size_t>(first_bit) + count + 7) / 8;
    mask_bytes(token / 8, std::span(block).first(bytes));
    for (size_t i = 0; i < count; ++i) {
      const size_t bit = static_cast<size_t>(first_bit) + i;
      if ((block[bit / 8] >> (bit % 8) & 1) == 0) values[i] = untrained;
    }
    values = values.subspan(count);
    token += static_cast<int64_t>(count);
  }
}

}  // namespace mixtune
