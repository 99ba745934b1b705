#include "run/records.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "base/file.h"
#include "base/json_value.h"
#include "base/lines.h"

namespace mixtune {

namespace {

// The step of a record; -1 where it is none.
int64_t step_of(std::string_view line) {
  const nlohmann::json record = nlohmann::json::parse(line.begin(), line.end(), nullptr, false);
  if (!record.is_object()) return -1;
  const auto step = record.find("step");
  return step != record.end() && step->is_number_unsigned() ? step->get<int64_t>() : -1;
}

// The size of the file up to the last whole record of `last` or an earlier step.
uint64_t size_up_to(const InputFile& file, int64_t last) {
  LineReader lines(file, kLongestRecord);
  uint64_t kept = 0;
  while (const std::optional<Line> line = lines.next())
    if (const int64_t step = line->is_whole ? step_of(line->text) : -1; step >= 0 && step <= last) kept = line->end;
  return kept;
}

}  // namespace

void cut_records(const std::string& path, int64_t step) {
  std::error_code none;
  if (!std::filesystem::exists(std::filesystem::symlink_status(path, none))) return;
  cut_file(path, size_up_to(InputFile(path), step));
}

void cut_file(const std::string& path, uint64_t size) {
  const Fd opened(open(path.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
  if (opened.get() < 0 || ftruncate(opened.get(), static_cast<off_t>(size)) != 0)
    throw UserError(printable_path(path), fmt::format("cannot be cut: {}", std::strerror(errno)),
                    "check the folder's permissions");
}

}  // namespace mixtune
