#include "job/wire.h"

#include <fmt/format.h>

#include "base/error.h"

namespace mixtune {

namespace {

void put_number(std::string& bytes, uint64_t value, size_t size) {
  for (size_t i = 0; i < size; ++i) bytes += static_cast<char>(value >> (8 * i) & 0xFF);
}

uint64_t number_in(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes.size(); ++i) value |= uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  return value;
}

}  // namespace

Error wire_error(std::string_view what) {
  return Error("", what, "");
}

FrameWriter::FrameWriter(FrameKind kind) : bytes_(kFrameHead, '\0') {
  bytes_ += static_cast<char>(kind);
}

FrameWriter& FrameWriter::number(int64_t value) {
  put_number(bytes_, static_cast<uint64_t>(value), sizeof value);
  return *this;
}

FrameWriter& FrameWriter::text(std::string_view value) {
  put_number(bytes_, value.size(), kFrameHead);
  bytes_ += value;
  return *this;
}

const std::string& FrameWriter::frame() {
  const size_t size = bytes_.size() - kFrameHead;
  if (size > kMaxFrame) throw wire_error(fmt::format("a message of {} bytes is too large for the coordinator", size));
  std::string head;
  put_number(head, size, kFrameHead);
  return bytes_.replace(0, kFrameHead, head);
}

FrameReader::FrameReader(std::string_view body) : rest_(body), kind_(static_cast<FrameKind>(take(1)[0])) {}

int64_t FrameReader::number() {
  return static_cast<int64_t>(number_in(take(sizeof(int64_t))));
}

int FrameReader::number_within(int lowest, int highest) {
  const int64_t value = number();
  if (value < lowest || value > highest) throw wire_error("a number is out of its range");
  return static_cast<int>(value);
}

std::string FrameReader::text() {
  return std::string(take(number_in(take(kFrameHead))));
}

void FrameReader::end() const {
  if (!rest_.empty()) throw wire_error("a message is too long");
}

std::string_view FrameReader::take(size_t size) {
  if (size > rest_.size()) throw wire_error("a message is cut short");
  const std::string_view part = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return part;
}

size_t frame_size(std::string_view head) {
  return number_in(head.substr(0, kFrameHead));
}

std::optional<std::string_view> first_frame(std::string_view bytes, size_t limit) {
  if (bytes.size() < kFrameHead) return std::nullopt;
  const size_t size = frame_size(bytes);
  if (size == 0 || size > limit) throw wire_error("a message is empty or too large");
  if (bytes.size() - kFrameHead < size) return std::nullopt;
  return bytes.substr(kFrameHead, size);
}

}  // namespace mixtune
