#include "run/records.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "base/error.h"
#include "base/file.h"
#include "base/json_value.h"

namespace mixtune {

namespace {

constexpr uint64_t kPiece = 1 << 20;

// The step of a record; -1 where it is none.
int64_t step_of(std::string_view line) {
  const nlohmann::json record = nlohmann::json::parse(line.begin(), line.end(), nullptr, false);
  if (!record.is_object()) return -1;
  const auto step = record.find("step");
  return step != record.end() && step->is_number_unsigned() ? step->get<int64_t>() : -1;
}

// The size of the file up to the last whole record of `last` or an earlier step.
uint64_t size_up_to(const InputFile& file, int64_t last) {
  uint64_t kept = 0, begin = 0;  // `begin`: of the line that `line` begins
  std::string line;
  for (uint64_t done = 0; done < file.size(); done += kPiece) {
    const std::string piece = file.read(done, std::min(kPiece, file.size() - done));
    for (size_t at = 0; at < piece.size();) {
      const size_t end = std::min(piece.find('\n', at), piece.size());
      line.append(piece, at, end - at);
      at = end + 1;
      if (end == piece.size()) break;
      begin += line.size() + 1;
      if (const int64_t step = step_of(line); step >= 0 && step <= last) kept = begin;
      line.clear();
    }
  }
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
