#include "data/tokenizer_model.h"

#include <fmt/format.h>

#include <cstdint>
#include <limits>
#include <optional>

#include "base/error.h"
#include "data/charsmap.h"

namespace mixtune {

namespace {

constexpr size_t kMaxModelPieces = 1 << 20;
constexpr size_t kMaxModelPieceBytes = 1024;

// ProtobufFields of sentencepiece_model.proto.
constexpr uint32_t kPieces = 1, kNormalizerSpec = 3, kDenormalizerSpec = 5;  // of ModelProto
constexpr uint32_t kPiece = 1;                                               // of ModelProto.SentencePiece
constexpr uint32_t kCharsmap = 2;                                            // of NormalizerSpec

// The fields of a protobuf message, one after the other.
class ProtobufFields {
 public:
  struct Field {
    uint32_t number;
    std::optional<std::string_view> bytes;  // of a length-delimited field
  };

  explicit ProtobufFields(std::string_view message) : rest_(message) {}

  // Reads the next field. Returns false at the end, and where the message is not sound.
  bool next(Field& field) {
    if (rest_.empty()) return false;
    const auto tag = varint();
    if (!tag || *tag > std::numeric_limits<uint32_t>::max() || *tag >> 3 == 0) return fail();
    field = {static_cast<uint32_t>(*tag >> 3), {}};
    switch (*tag & 7) {
      case 0:
        return varint() || fail();
      case 1:
        return take(8) || fail();
      case 5:
        return take(4) || fail();
      case 2: {
        const auto size = varint();
        if (size) field.bytes = take(*size);
        return field.bytes || fail();
      }
      default:  // groups, which sentencepiece has none of
        return fail();
    }
  }

  bool sound() const { return sound_; }

 private:
  bool fail() { return sound_ = false; }

  std::optional<std::string_view> take(uint64_t size) {
    if (size > rest_.size()) return {};
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }

  std::optional<uint64_t> varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      value |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    return {};
  }

  std::string_view rest_;
  bool sound_ = true;
};

class Checker {
 public:
  explicit Checker(const std::string& where) : where_(where) {}

  void check_model(std::string_view proto) {
    size_t pieces = 0;
    each_of(proto, [&](const ProtobufFields::Field& field) {
      if (!field.bytes) return;
      if (field.number == kPieces) {
        if (++pieces > kMaxModelPieces) refuse(fmt::format("has more than {} pieces", kMaxModelPieces));
        each_of(*field.bytes, [&](const ProtobufFields::Field& of_piece) { check_piece(of_piece); });
      } else if (field.number == kNormalizerSpec || field.number == kDenormalizerSpec) {
        each_of(*field.bytes, [&](const ProtobufFields::Field& of_spec) { check_spec(of_spec); });
      }
    });
  }

 private:
  template <class Action>
  void each_of(std::string_view message, const Action& action) const {
    ProtobufFields fields(message);
    for (ProtobufFields::Field field; fields.next(field);) action(field);
    if (!fields.sound()) refuse("is not a sound sentencepiece model");
  }

  void check_piece(const ProtobufFields::Field& field) const {
    if (field.number != kPiece || !field.bytes) return;
    if (field.bytes->size() > kMaxModelPieceBytes)
      refuse(fmt::format("has a piece of {} bytes, more than {}", field.bytes->size(), kMaxModelPieceBytes));
    if (field.bytes->find('\0') != field.bytes->npos) refuse("has a piece with a zero byte, which no trie can hold");
  }

  void check_spec(const ProtobufFields::Field& field) const {
    if (field.number == kCharsmap && field.bytes && !is_sound_charsmap(*field.bytes))
      refuse("has a precompiled_charsmap that leads out of itself");
  }

  [[noreturn]] void refuse(std::string_view what) const {
    throw UserError(where_, what, "fetch it again from the model's hub page");
  }

  const std::string& where_;
};

}  // namespace

void check_tokenizer_model(std::string_view proto, const std::string& where) {
  Checker(where).check_model(proto);
}

}  // namespace mixtune
