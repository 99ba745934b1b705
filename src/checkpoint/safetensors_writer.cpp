#include "checkpoint/safetensors_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "base/error.h"
#include "base/json_value.h"

namespace mixtune {

namespace {

static_assert(std::endian::native == std::endian::little, "tensors are written as they are");

std::string header_text(std::span<const TensorEntry> entries) {
  std::string text = R"({"__metadata__":{"format":"pt"})";
  uint64_t offset = 0;
  for (const TensorEntry& entry : entries) {
    std::vector<int64_t> dims;
    for (int i = 0; i < entry.shape.rank(); ++i) dims.push_back(entry.shape[i]);
    text += fmt::format(R"(,{}:{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})", nlohmann::json(entry.name).dump(),
                        file_type_text(entry.dtype), nlohmann::json(dims).dump(), offset, offset + entry.bytes());
    offset += entry.bytes();
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::span<const TensorEntry> entries) : file_(path) {
  const std::string header = header_text(entries);
  const uint64_t length = header.size();
  for (const std::span<const std::byte> part :
       {std::as_bytes(std::span(&length, 1)), std::as_bytes(std::span(header))}) {
    file_.write(part);
    whole_.add(part);
    next_ += part.size();
  }
  begins_ = {next_};
  for (const TensorEntry& entry : entries) {
    names_.push_back(entry.name);
    begins_.push_back(begins_.back() + entry.bytes());
  }
  missing_ = begins_.back() - begins_.front();
  end_tensors(next_);
}

void SafetensorsWriter::write(size_t entry, uint64_t begin, std::span<const std::byte> bytes) {
  const uint64_t place = begins_[entry] + begin;
  MT_CHECK(bytes.size() <= missing_ && place + bytes.size() <= begins_[entry + 1]);
  file_.write_at(static_cast<int64_t>(place), bytes);
  missing_ -= bytes.size();
  add_in_order(place, bytes);
}

// Both digests take a stretch while it is in the processor's cache.
void SafetensorsWriter::add_in_order(uint64_t place, std::span<const std::byte> bytes) {
  constexpr size_t kStretch = 256 << 10;
  in_order_ = in_order_ && place == next_;
  if (!in_order_) return;
  for (; !bytes.empty(); bytes = bytes.subspan(std::min(kStretch, bytes.size()))) {
    const auto stretch = bytes.first(std::min(kStretch, bytes.size()));
    whole_.add(stretch);
    tensor_.add(stretch);
    next_ += stretch.size();
  }
  end_tensors(next_);
}

// Takes down the digests of the tensors that end at `place`: more than one, where some are empty.
void SafetensorsWriter::end_tensors(uint64_t place) {
  for (size_t i = stored_.tensors.size(); i < names_.size() && begins_[i + 1] == place; ++i)
    stored_.tensors[names_[i]] = tensor_.take();
}

StoredFile SafetensorsWriter::finish() {
  MT_CHECK(missing_ == 0);
  file_.finish();
  if (!in_order_) return digest_file(file_.path());
  stored_.size = next_;
  stored_.xxh3 = whole_.take();
  return std::move(stored_);
}

}  // namespace mixtune
