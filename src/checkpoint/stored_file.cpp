#include "checkpoint/stored_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/xxh3.h"
#include "checkpoint/read_in_turn.h"
#include "checkpoint/safetensors.h"

namespace mixtune {

namespace {

// The digests of a file's tensors, by its bytes in turn.
class TensorDigests {
 public:
  explicit TensorDigests(const StoredTensors& tensors) : order_(by_place(tensors)) {}

  // `bytes` are those of the file from `begin` on.
  void add(uint64_t begin, std::span<const std::byte> bytes) {
    const uint64_t end = begin + bytes.size();
    for (; next_ < order_.size() && order_[next_]->second.begin < end; ++next_) {
      const StoredTensor& tensor = order_[next_]->second;
      const uint64_t from = std::max(begin, tensor.begin), to = std::min(end, tensor.end);
      digest_.add(bytes.subspan(from - begin, to - from));
      if (tensor.end > end) return;
      digests_[order_[next_]->first] = digest_.take();
    }
  }

  std::map<std::string, std::string> take() {
    for (; next_ < order_.size(); ++next_) digests_[order_[next_]->first] = digest_.take();  // empty ones at the end
    return std::move(digests_);
  }

 private:
  std::vector<const StoredTensors::value_type*> order_;
  size_t next_ = 0;
  Xxh3 digest_;
  std::map<std::string, std::string> digests_;
};

// None where it is no safetensors file, whatever its name says.
StoredTensors tensors_of(const std::string& path) {
  if (!path.ends_with(".safetensors")) return {};
  try {
    return SafetensorsFile(path).tensors();
  } catch (const UserError&) {
    return {};
  }
}

}  // namespace

StoredFile stored_file(std::string_view content) {
  Xxh3 hash;
  hash.add(std::as_bytes(std::span(content)));
  return {content.size(), hash.take()};
}

std::string changed_bytes(const std::string& now, const std::string& was) {
  return fmt::format("its bytes are not those that were written (XXH3 {}, was {})", now, printable(was, 32));
}

std::string changed_tensor(const std::string& name, const std::string& now, const std::string& was) {
  return fmt::format("tensor {}: {}", printable(name, 200), changed_bytes(now, was));
}

StoredFile digest_file(const std::string& path, const BytesDone& progress) {
  const InputFile file(path);
  std::vector<FileStretch> stretches;
  for (uint64_t begin = 0; begin < file.size(); begin = stretches.back().end)
    stretches.push_back({&file, begin, std::min(begin + kMostInTurn, file.size())});
  const StoredTensors tensors = tensors_of(path);
  Xxh3 whole;
  TensorDigests each(tensors);
  const auto add = [&](size_t i, std::span<const std::byte> bytes) {
    whole.add(bytes);
    each.add(stretches[i].begin, bytes);
  };
  read_in_turn(stretches, add, progress);
  return {file.size(), whole.take(), each.take()};
}

}  // namespace mixtune
