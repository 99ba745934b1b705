#include "kernels/gemm/gemm_choices.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <initializer_list>
#include <limits>
#include <optional>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/output_file.h"
#include "base/random.h"
#include "base/staged.h"

namespace mixtune {

namespace {

constexpr std::string_view kTitle = "mixtune GEMM choices 1: ";  // the number is the format's
constexpr size_t kMaxFileBytes = 4 << 20, kMaxLineBytes = 512;
constexpr int64_t kMaxSize = std::numeric_limits<int32_t>::max();
constexpr std::string_view kMxSuffix = "/e8m0";  // of operands whose scales are such

}  // namespace

GemmKey GemmKey::with_tokens(int64_t tokens) const {
  GemmKey key = *this;
  (trans_a ? key.k : key.m) = tokens;
  return key;
}

GemmKey GemmKey::bucket() const {
  return has_buckets() ? with_tokens(token_bucket(tokens())) : *this;
}

std::string GemmKey::str() const {
  return fmt::format("{}{} {} {}{} {}x{}x{} {} {}", dtype_name(operands), scales == DType::kF8E8M0 ? kMxSuffix : "",
                     dtype_name(result), trans_a ? 't' : 'n', trans_b ? 't' : 'n', m, n, k, accumulate ? "+=" : "=",
                     alignment);
}

int64_t token_bucket(int64_t tokens) {
  int64_t power = kRowAlignment;
  while (power < tokens) power *= 2;
  const int64_t between = power / 4 * 3;
  return between >= tokens && between % kRowAlignment == 0 ? between : power;
}

int alignment_class(uintptr_t address) {
  if (address % 256 == 0) return 256;
  int bytes = 16;
  while (address % bytes != 0) bytes /= 2;
  return bytes;
}

namespace {

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(separator, at), text.size());
    parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

template <class Number, class... Base>
bool read_number(std::string_view text, Number& number, Base... base) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base...);
  return error == std::errc() && end == text.data() + text.size();
}

bool read_dtype(std::string_view text, std::initializer_list<DType> known, DType& dtype) {
  for (const DType one : known)
    if (text == dtype_name(one)) return dtype = one, true;
  return false;
}

bool read_sizes(std::string_view text, GemmKey& key) {
  const auto sizes = split(text, 'x');
  if (sizes.size() != 3) return false;
  for (const auto& [size, at] : {std::pair(&key.m, 0), std::pair(&key.n, 1), std::pair(&key.k, 2)})
    if (!read_number(sizes[at], *size) || *size < 1 || *size > kMaxSize) return false;
  return true;
}

bool read_algorithm(std::string_view text, GemmAlgorithm& algorithm) {
  if (text.size() != 16 * algorithm.size()) return false;
  for (size_t i = 0; i < algorithm.size(); ++i)
    if (!read_number(text.substr(16 * i, 16), algorithm[i], 16)) return false;
  return true;
}

// The digits that guard a line against damage.
std::string check_digits(std::string_view line) {
  return fmt::format("{:016x}", random_key(0, line));
}

std::string format_line(const GemmKey& key, const GemmChoice& choice) {
  std::string line = key.str() + " ";
  for (const uint64_t word : choice.algorithm) line += fmt::format("{:016x}", word);
  line += fmt::format(" {:.1f}", choice.microseconds);
  return line + " " + check_digits(line);
}

std::optional<GemmChoices::value_type> parse_line(std::string_view line) {
  if (line.size() > kMaxLineBytes) return {};
  const auto fields = split(line, ' ');
  if (fields.size() != 9) return {};
  GemmKey key;
  GemmChoice choice;
  std::string_view operands = fields[0];
  if (operands.ends_with(kMxSuffix)) {
    operands.remove_suffix(kMxSuffix.size());
    key.scales = DType::kF8E8M0;
  }
  const bool read = read_dtype(operands, {DType::kF32, DType::kBF16, DType::kF8E4M3}, key.operands) &&
                    read_dtype(fields[1], {DType::kF32, DType::kBF16}, key.result) && read_sizes(fields[3], key) &&
                    read_number(fields[5], key.alignment) && read_algorithm(fields[6], choice.algorithm) &&
                    read_number(fields[7], choice.microseconds);
  key.trans_a = fields[2].starts_with('t');
  key.trans_b = fields[2].ends_with('t');
  key.accumulate = fields[4] == "+=";
  // A line is valid if it would be written just so.
  if (!read || format_line(key, choice) != line) return {};
  return GemmChoices::value_type(key, choice);
}

}  // namespace

std::string format_choices(std::string_view machine, const GemmChoices& choices) {
  std::string text = fmt::format("{}{}\n", kTitle, machine);
  for (const auto& [key, choice] : choices) text += format_line(key, choice) + "\n";
  return text;
}

GemmChoices measured_among(const GemmChoices& choices) {
  GemmChoices measured;
  for (const auto& [key, choice] : choices)
    if (choice.microseconds > 0) measured.emplace(key, choice);
  return measured;
}

std::string digest_of(std::string_view machine, const GemmChoices& choices) {
  GemmChoices without_times = choices;
  for (auto& [key, choice] : without_times) choice.microseconds = 0;
  return fmt::format("{:016x}", random_key(0, format_choices(machine, without_times)));
}

ReadChoices parse_choices(std::string_view text, std::string_view machine) {
  ReadChoices read;
  auto lines = split(text, '\n');
  read.of_this_machine = lines[0] == fmt::format("{}{}", kTitle, machine);
  if (!read.of_this_machine) return read;
  for (const std::string_view line : std::span(lines).subspan(1)) {
    if (line.empty()) continue;
    if (const auto choice = parse_line(line))
      read.choices.insert(*choice);
    else
      ++read.bad_lines;
  }
  return read;
}

GemmChoices read_choices(const std::string& path, std::string_view machine) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return {};
  try {
    ReadChoices read = parse_choices(read_small_file(path, kMaxFileBytes, "delete it"), machine);
    if (!read.of_this_machine)
      log_warning("{}: does not hold GEMM choices for {}; they are made anew", printable_path(path), machine);
    if (read.bad_lines > 0)
      log_warning("{}: {} damaged line(s) left out; these GEMM choices are made anew", printable_path(path),
                  read.bad_lines);
    return std::move(read.choices);
  } catch (const Error& error) {
    log_warning("{}; GEMM choices are made anew", error.what());
    return {};
  }
}

namespace {

// While it lives no other process has the lock of a file. The lock is on another file beside it: the file itself is
// replaced, and NFS locks only what is open to be written. Where the file system has no locks it does nothing.
class FileLock {
 public:
  explicit FileLock(const std::string& path)
      : fd_(open((path + ".lock").c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666)) {
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (flock(fd_.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      if (std::chrono::steady_clock::now() > end)
        throw Error(path, "another process keeps it locked", "end that process");
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

 private:
  static constexpr std::chrono::seconds kPatience{10};
  Fd fd_;
};

}  // namespace

void add_choices(const std::string& path, std::string_view machine, const GemmChoices& choices) {
  try {
    std::filesystem::create_directories(parent_folder(path));
    const FileLock lock(path);
    GemmChoices all = choices;
    all.merge(read_choices(path, machine));
    write_whole_file(path, format_choices(machine, all), Existing::kReplaced);
  } catch (const std::exception& error) {
    log_warning("GEMM choices are not kept: {}", printable(error.what(), 400));
  }
}

}  // namespace mixtune
