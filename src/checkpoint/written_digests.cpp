#include "checkpoint/written_digests.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "checkpoint/read_in_turn.h"

namespace mixtune {

namespace {

constexpr const char* kMend = "resume from another checkpoint, or get the file from a copy of this one";

}  // namespace

WrittenDigests::WrittenDigests(std::string folder, const StoredFiles& written)
    : folder_(std::move(folder)), written_(written) {}

void WrittenDigests::add(const SafetensorsFile& file, uint64_t begin, std::span<const std::byte> bytes) {
  if (&file != file_) {
    finish();
    open(file);
  }
  if (under_way_ && begin > end_) read_rest();
  const uint64_t end = begin + bytes.size();
  while (next_ < order_.size() && order_[next_]->second.begin < end) {
    const StoredTensor& tensor = order_[next_]->second;
    const uint64_t from = under_way_ ? end_ : tensor.begin, to = std::max(from, std::min(end, tensor.end));
    if (from < begin) {  // its first byte is another rank's
      ++next_;
      continue;
    }
    digest_.add(bytes.subspan(std::min(from, end) - begin, to - from));
    under_way_ = true;
    end_ = to;
    if (tensor.end > to) return;
    check();
  }
}

void WrittenDigests::finish() {
  if (under_way_) read_rest();
}

void WrittenDigests::open(const SafetensorsFile& file) {
  file_ = &file;
  order_.clear();
  next_ = 0;
  const std::string start = folder_ + "/";
  const auto found = file.path().starts_with(start) ? written_.find(file.path().substr(start.size())) : written_.end();
  digests_ = found == written_.end() ? nullptr : &found->second;
  if (digests_ == nullptr) return;
  order_ = by_place(file.tensors());
  std::erase_if(order_, [&](const auto* tensor) { return !digests_->tensors.contains(tensor->first); });
}

void WrittenDigests::read_rest() {
  std::vector<FileStretch> stretches;
  for (const uint64_t tensor_end = order_[next_]->second.end; end_ < tensor_end; end_ = stretches.back().end)
    stretches.push_back({&file_->file(), end_, std::min(end_ + kMostInTurn, tensor_end)});
  read_in_turn(stretches, [&](size_t, std::span<const std::byte> bytes) { digest_.add(bytes); });
  check();
}

void WrittenDigests::check() {
  const std::string& name = order_[next_]->first;
  const std::string now = digest_.take(), &was = digests_->tensors.at(name);
  ++next_;
  under_way_ = false;
  if (now == was) return;
  file_->file().check_unchanged();
  throw UserError(printable_path(file_->path()), changed_tensor(name, now, was), kMend);
}

}  // namespace mixtune
