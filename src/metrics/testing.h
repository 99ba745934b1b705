// Helpers for tests of what runs record: a reader of event files that shares nothing with what writes them.
#pragma once

#include <sys/resource.h>

#include <csignal>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "metrics/metric_sink.h"

namespace mixtune {

inline StepRecord record(int64_t step) {
  return {.step = step,
          .total_steps = 500,
          .epoch = 0.25,
          .loss = 3.4567,
          .lm_loss = 3.4,
          .aux_loss = 2.835,
          .grad_norm = 1.25,
          .router_grad_norm = 0.125,
          .expert_imbalance = 1.5,
          .expert_share = 0.375,
          .router_entropy = 0.75,
          .router_logit_scale = 2.5,
          .learning_rate = 4.9e-5,
          .tokens = 2048,
          .target_tokens = 2000,
          .memory_gib = 1.75,
          .tokens_per_second = 12345.6,
          .model_tflops = 405.5,
          .mfu = 0.41,
          .milliseconds = 100};
}

// While it lives, no file of this process grows beyond `bytes`, as on a full disk.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) {
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit small{bytes, old_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
  }
  ~FullDisk() { setrlimit(RLIMIT_FSIZE, &old_); }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  rlimit old_{};
};

// An event as it was read. Scalars that an event has twice are an error.
struct SeenEvent {
  double wall = 0;
  int64_t step = 0;
  std::string version, writer;
  bool begins = false;  // a session
  std::map<std::string, float> scalars;
  std::map<std::string, std::map<double, double>> counts;  // of histograms: by where a bucket ends
  std::map<std::string, std::string> pictures;             // PNG files
};

class EventFileForTests {
 public:
  // Throws where a byte of the file is not what it should be.
  explicit EventFileForTests(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    for (size_t at = 0; at < bytes.size();) {
      const auto size = number<uint64_t>(bytes, at);
      check_sum(bytes, at, 8);
      check_sum(bytes, at + 12, size);
      events_.push_back(parse(bytes.substr(at + 12, size)));
      at += 12 + size + 4;
    }
  }

  const std::vector<SeenEvent>& events() const { return events_; }

 private:
  template <class T>
  static T number(const std::string& bytes, size_t at) {
    if (bytes.size() < sizeof(T) || at > bytes.size() - sizeof(T)) throw std::runtime_error("an event file is cut");
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof(T));
    return value;
  }

  // Of the `size` bytes from `at` on, which the sum follows: bit by bit, as the polynomial is defined.
  static void check_sum(const std::string& bytes, size_t at, uint64_t size) {
    if (size > bytes.size()) throw std::runtime_error("an event is too large");
    uint32_t crc = 0xFFFFFFFF;
    for (size_t i = at; i < at + size; ++i)
      for (int bit = 0; bit < 8; ++bit) {
        const bool one = ((crc ^ (number<uint8_t>(bytes, i) >> bit)) & 1) != 0;
        crc = (crc >> 1) ^ (one ? 0x82F63B78 : 0);
      }
    crc = ~crc;
    if (number<uint32_t>(bytes, at + size) != ((crc >> 15) | (crc << 17)) + 0xA282EAD8)
      throw std::runtime_error("a checksum of an event is wrong");
  }

  static uint64_t varint(const std::string& bytes, size_t& at) {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = number<uint8_t>(bytes, at++);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
  }

  static std::string text(const std::string& bytes, size_t& at) {
    const uint64_t size = varint(bytes, at);
    if (size > bytes.size() - at) throw std::runtime_error("a field is cut");
    at += size;
    return bytes.substr(at - size, size);
  }

  static SeenEvent parse(const std::string& bytes) {
    SeenEvent event;
    for (size_t at = 0; at < bytes.size();) switch (bytes[at++]) {
        case 1 << 3 | 1:
          event.wall = number<double>(bytes, at);
          at += 8;
          break;
        case 2 << 3 | 0:
          event.step = static_cast<int64_t>(varint(bytes, at));
          break;
        case 3 << 3 | 2:
          event.version = text(bytes, at);
          break;
        case 5 << 3 | 2:
          summary(text(bytes, at), event);
          break;
        case 7 << 3 | 2:
          event.begins = text(bytes, at) == "\x08\x01";
          break;
        case 10 << 3 | 2:
          event.writer = text(bytes, at).substr(2);
          break;
        default:
          throw std::runtime_error("an event has another field");
      }
    return event;
  }

  static void summary(const std::string& bytes, SeenEvent& event) {
    for (size_t at = 0; at < bytes.size();) {
      if (bytes[at++] != (1 << 3 | 2)) throw std::runtime_error("a summary has another field");
      const std::string value = text(bytes, at);
      size_t inner = 1;
      const std::string tag = text(value, inner);
      if (value[0] != (1 << 3 | 2) || inner >= value.size()) throw std::runtime_error("a value has no tag");
      const int kind = value[inner++];
      bool first = true;
      if (kind == (2 << 3 | 5) && value.size() == inner + 4)
        first = event.scalars.emplace(tag, number<float>(value, inner)).second;
      else if (kind == (5 << 3 | 2))
        first = event.counts.emplace(tag, histogram(text(value, inner))).second;
      else if (kind == (4 << 3 | 2))
        first = event.pictures.emplace(tag, image(text(value, inner))).second;
      else
        throw std::runtime_error("a value is of no known kind");
      if (!first) throw std::runtime_error(tag + " comes twice");
    }
  }

  static std::map<double, double> histogram(const std::string& bytes) {
    size_t at = 5 * 9;  // five numbers, each behind its field
    if (bytes.size() <= at || bytes[at++] != (6 << 3 | 2)) throw std::runtime_error("a histogram has no limits");
    const std::string limits = text(bytes, at);
    if (at >= bytes.size() || bytes[at++] != (7 << 3 | 2)) throw std::runtime_error("a histogram has no buckets");
    const std::string buckets = text(bytes, at);
    if (at != bytes.size() || limits.size() != buckets.size()) throw std::runtime_error("a histogram is not whole");
    std::map<double, double> counts;
    for (size_t i = 0; i < limits.size(); i += 8) counts[number<double>(limits, i)] = number<double>(buckets, i);
    return counts;
  }

  static std::string image(const std::string& bytes) {
    size_t at = 0;
    for (const char field : {1 << 3, 2 << 3, 3 << 3}) {
      if (bytes.at(at++) != field) throw std::runtime_error("an image has no size");
      varint(bytes, at);
    }
    if (bytes.at(at++) != (4 << 3 | 2)) throw std::runtime_error("an image has no bytes");
    return text(bytes, at);
  }

  std::vector<SeenEvent> events_;
};

inline std::vector<SeenEvent> seen_events(const std::string& path) {
  return EventFileForTests(path).events();
}

}  // namespace mixtune
