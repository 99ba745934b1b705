#include "metrics/jsonl_sink.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "base/error.h"
#include "base/json_value.h"
#include "base/log.h"
#include "metrics/fields.h"

namespace mixtune {

namespace {

// Writes `text`. Returns false, with errno set, where not all of it could be written.
bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    text.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

void add(const ParallelRecord& r, nlohmann::ordered_json& object) {
  for (const RankField& field : kRankFields) {
    nlohmann::ordered_json& values = object[fmt::format("rank_{}", field.name)];
    for (const RankRecord& rank : r.ranks) field.of(rank, [&](auto number) { values.push_back(number); });
  }
  object["expert_tokens"] = r.expert_tokens;
  object["expert_imbalance"] = r.expert_imbalance;
}

}  // namespace

JsonlSink::JsonlSink(const std::string& path, bool goes_on)
    : path_(path),
      file_(open(path.c_str(), O_WRONLY | O_CREAT | (goes_on ? 0 : O_EXCL) | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0666)) {
  if (file_.get() < 0)
    throw UserError(printable_path(path), fmt::format("cannot be written: {}", std::strerror(errno)),
                    "check the disk's space and the folder's permissions");
  size_ = lseek(file_.get(), 0, SEEK_END);
}

void JsonlSink::step(const StepRecord& r) {
  nlohmann::ordered_json object;
  for (const Field<StepRecord>& field : kStepFields) field.of(r, [&](auto number) { object[field.name] = number; });
  if (!r.plans.empty()) object["plans"] = r.plans;
  if (r.parallel) add(*r.parallel, object);
  write(object.dump());
}

void JsonlSink::evaluation(const EvalRecord& r) {
  const nlohmann::ordered_json object = {{"step", r.step},
                                         {"eval_loss", r.eval_loss},
                                         {"eval_perplexity", r.eval_perplexity},
                                         {"eval_tokens", r.eval_tokens},
                                         {"milliseconds", r.milliseconds}};
  write(object.dump());
}

void JsonlSink::finish() {
  if (lost_ > 0) log_warning("{}: {} records could not be written, and are missing", printable_path(path_), lost_);
  if (fsync(file_.get()) != 0) warn(errno, "what is in it may not be on the disk");
}

// Cuts off again a line that does not fit: every line of the file is whole.
void JsonlSink::write(std::string line) {
  line += '\n';
  if (!is_clean_) is_clean_ = ftruncate(file_.get(), size_) == 0;
  if (is_clean_ && write_all(file_.get(), line)) {
    size_ += static_cast<int64_t>(line.size());
    return;
  }
  const int error = errno;
  is_clean_ = ftruncate(file_.get(), size_) == 0;
  ++lost_;
  warn(error, "the run goes on without what is lost there");
}

void JsonlSink::warn(int error, const char* consequence) {
  if (!warned_) log_warning("{}: cannot be written: {}; {}", printable_path(path_), std::strerror(error), consequence);
  warned_ = true;
}

}  // namespace mixtune
