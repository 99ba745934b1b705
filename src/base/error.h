// Errors: exceptions for what the outside world does, and checks for mixtune's own bugs.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace mixtune {

// Exit codes of the program (docs/design.md, section 8).
enum class ExitCode : int { kDone = 0, kFailed = 1, kUserError = 2, kStopped = 16, kWentBad = 17 };

// A failure that the outside world caused: one line that says where, what, and how to mend it.
class Error : public std::runtime_error {
 public:
  Error(std::string_view where, std::string_view what, std::string_view mend, ExitCode code = ExitCode::kFailed);
  ExitCode exit_code() const { return code_; }

 private:
  ExitCode code_;
};

// An Error the user can mend and could have known of: exit code 2.
class UserError : public Error {
 public:
  UserError(std::string_view where, std::string_view what, std::string_view mend)
      : Error(where, what, mend, ExitCode::kUserError) {}
};

// `text` cut to `limit` bytes with control characters and invalid UTF-8 made visible: safe to print in a one-line
// message, whatever file it came from.
std::string printable(std::string_view text, size_t limit = 80);
std::string printable_path(std::string_view path);  // up to 400 bytes of it

bool is_utf8(std::string_view text);

[[noreturn]] void check_failed(const char* condition, const char* file, int line);

}  // namespace mixtune

// Checks a condition that only a bug of mixtune can break; stays on in release builds.
#define MT_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::mixtune::check_failed(#condition, __FILE__, __LINE__))
