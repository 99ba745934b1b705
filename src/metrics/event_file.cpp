#include "metrics/event_file.h"

#include <bit>
#include <concepts>
#include <cstring>

#include "base/crc32c.h"
#include "metrics/png.h"

namespace mixtune {

namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint64_t kMaxMessage = 1 << 26;
constexpr uint64_t kHead = 12, kTail = 4;  // bytes around a message

enum WireType : uint64_t { kVarint = 0, k64Bits = 1, kBytes = 2, k32Bits = 5 };

// Numbers of fields in TensorBoard's event.proto and summary.proto.
constexpr uint64_t kEventWallTime = 1, kEventStep = 2, kEventFileVersion = 3, kEventSummary = 5, kEventSessionLog = 7,
                   kEventSource = 10;
constexpr uint64_t kSourceWriter = 1, kSessionStatus = 1, kSummaryValue = 1, kValueTag = 1, kValueNumber = 2,
                   kValueImage = 4, kValueHistogram = 5;
constexpr uint64_t kHistogramLeast = 1, kHistogramMost = 2, kHistogramCount = 3, kHistogramSum = 4,
                   kHistogramSquares = 5, kHistogramLimits = 6, kHistogramBuckets = 7;
constexpr uint64_t kImageHeight = 1, kImageWidth = 2, kImageColours = 3, kImageBytes = 4;
constexpr uint64_t kRgb = 3;
constexpr uint64_t kSessionStart = 1;

template <class T>
void put_plain(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

template <class T>
T plain(std::string_view bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

void put(std::string& out, uint64_t field, std::string_view bytes) {
  put_varint(out, field << 3 | kBytes);
  put_varint(out, bytes.size());
  out += bytes;
}

void put(std::string& out, uint64_t field, std::integral auto value) {
  put_varint(out, field << 3 | kVarint);
  put_varint(out, static_cast<uint64_t>(value));
}

void put(std::string& out, uint64_t field, std::floating_point auto value) {
  put_varint(out, field << 3 | (sizeof(value) == 8 ? k64Bits : k32Bits));
  put_plain(out, value);
}

// A field of a message: its number, and its value, as a number or as bytes.
struct Part {
  uint64_t field = 0, number = 0;
  std::string_view bytes;
};

// Takes a varint from the front of `bytes`; none where there is no whole one.
std::optional<uint64_t> take_varint(std::string_view& bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes.size() && i < 10; ++i) {
    const auto byte = static_cast<unsigned char>(bytes[i]);
    value |= uint64_t{byte & 0x7Fu} << (7 * i);
    if (byte >= 0x80) continue;
    bytes.remove_prefix(i + 1);
    return value;
  }
  return {};
}

// Takes a field from the front of `message`; none where there is no whole one.
std::optional<Part> take(std::string_view& message) {
  const std::optional<uint64_t> key = take_varint(message);
  if (!key) return {};
  Part part{.field = *key >> 3};
  uint64_t size = 0;
  switch (*key & 7) {
    case kVarint:
    case kBytes: {
      const std::optional<uint64_t> number = take_varint(message);
      if (!number) return {};
      part.number = *number;
      if ((*key & 7) == kBytes) size = part.number;
      break;
    }
    case k64Bits:
      size = 8;
      break;
    case k32Bits:
      size = 4;
      break;
    default:
      return {};
  }
  if (size > message.size()) return {};
  part.bytes = message.substr(0, size);
  message.remove_prefix(size);
  return part;
}

// Calls use(part) for each field; false where the message is none.
template <class Use>
bool for_parts(std::string_view message, const Use& use) {
  while (!message.empty()) {
    const std::optional<Part> part = take(message);
    if (!part) return false;
    use(*part);
  }
  return true;
}

std::string event(double wall, int64_t step) {
  std::string out;
  put(out, kEventWallTime, wall);
  if (step != 0) put(out, kEventStep, step);
  return out;
}

// A list of numbers, packed.
void put(std::string& out, uint64_t field, std::span<const double> numbers) {
  std::string bytes;
  for (const double number : numbers) put_plain(bytes, number);
  put(out, field, std::string_view(bytes));
}

// Number i stands in the bucket [i, i + 1). Readers take the least number for where the first bucket begins.
std::string histogram(std::span<const double> counts) {
  size_t first = 0, end = counts.size();
  while (first < end && counts[first] == 0) ++first;
  while (end > first && counts[end - 1] == 0) --end;
  std::vector<double> limits;
  double count = 0, sum = 0, squares = 0;
  for (size_t i = first; i < end; ++i) {
    const auto number = static_cast<double>(i);
    limits.push_back(number + 1);
    count += counts[i];
    sum += counts[i] * number;
    squares += counts[i] * number * number;
  }
  std::string out;
  put(out, kHistogramLeast, static_cast<double>(first));
  put(out, kHistogramMost, static_cast<double>(end));
  put(out, kHistogramCount, count);
  put(out, kHistogramSum, sum);
  put(out, kHistogramSquares, squares);
  put(out, kHistogramLimits, std::span<const double>(limits));
  put(out, kHistogramBuckets, counts.subspan(first, end - first));
  return out;
}

std::string image(const Picture& picture) {
  std::string out;
  put(out, kImageHeight, picture.height);
  put(out, kImageWidth, picture.width);
  put(out, kImageColours, kRgb);
  put(out, kImageBytes, std::string_view(png_of(picture.width, picture.height, picture.pixels)));
  return out;
}

// A value of a summary: a number, or the bytes of a message.
template <class Content>
void put_value(std::string& summary, const std::string& tag, uint64_t field, const Content& content) {
  std::string value;
  put(value, kValueTag, std::string_view(tag));
  put(value, field, content);
  put(summary, kSummaryValue, std::string_view(value));
}

// TensorFlow's way of having the checksum of something that holds checksums.
uint32_t masked_checksum(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xA282EAD8u;
}

}  // namespace

std::string opening_event(double wall) {
  std::string out = event(wall, 0), source;
  put(out, kEventFileVersion, std::string_view("brain.Event:2"));
  put(source, kSourceWriter, kEventWriter);
  put(out, kEventSource, source);
  return out;
}

std::string session_event(double wall, int64_t step) {
  std::string out = event(wall, step), session;
  put(session, kSessionStatus, kSessionStart);
  put(out, kEventSessionLog, session);
  return out;
}

std::string summary_event(double wall, int64_t step, std::span<const Scalar> scalars, std::span<const Counts> counts,
                          const Picture* picture) {
  std::string out = event(wall, step), summary;
  for (const Scalar& scalar : scalars) put_value(summary, scalar.tag, kValueNumber, scalar.value);
  for (const Counts& each : counts) put_value(summary, each.tag, kValueHistogram, std::string_view(histogram(each.of)));
  if (picture) put_value(summary, picture->tag, kValueImage, std::string_view(image(*picture)));
  put(out, kEventSummary, std::string_view(summary));
  return out;
}

std::string framed(std::string_view message) {
  std::string out;
  put_plain(out, uint64_t{message.size()});
  put_plain(out, masked_checksum(out));
  out += message;
  put_plain(out, masked_checksum(message));
  return out;
}

std::optional<Event> EventReader::next() {
  const uint64_t left = file_.size() - end_;
  if (left < kHead + kTail) return {};
  const std::string head = file_.read(end_, kHead);
  const auto size = plain<uint64_t>(head);
  const std::string_view length = std::string_view(head).substr(0, 8);
  if (size > kMaxMessage || size > left - kHead - kTail ||
      plain<uint32_t>(std::string_view(head).substr(8)) != masked_checksum(length))
    return {};
  Event event{.message = file_.read(end_ + kHead, size + kTail)};
  const auto checksum = plain<uint32_t>(std::string_view(event.message).substr(size));
  event.message.resize(size);
  const bool whole = checksum == masked_checksum(event.message) && for_parts(event.message, [&](const Part& part) {
                       if (part.field == kEventStep) event.step = static_cast<int64_t>(part.number);
                       if (part.field == kEventSource)
                         for_parts(part.bytes, [&](const Part& inner) {
                           if (inner.field == kSourceWriter) event.writer = inner.bytes;
                         });
                     });
  if (!whole) return {};
  end_ += kHead + size + kTail;
  return event;
}

}  // namespace mixtune
