#include "job/coordinator_client.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "job/handshake.h"
#include "job/socket.h"
#include "job/wire.h"

namespace mixtune {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kBeatEvery{200};
constexpr milliseconds kRetryEvery{50};
constexpr milliseconds kAttempt{5000};  // a listener that does not answer in this time is no coordinator
constexpr milliseconds kSlack{5000};    // an answer may come later by this than what it waited for
constexpr size_t kNameLimit = 80;

Failure failure_in(FrameReader& reader) {
  Failure failure;
  failure.rank = static_cast<int>(reader.number());
  failure.exit_code = static_cast<int>(reader.number());
  failure.connection_lost = reader.number() != 0;
  failure.message = reader.text();
  return failure;
}

// Assigning within the capacity allocates nothing.
void assign_name(std::string& name, const char* text) {
  name.assign(text, std::char_traits<char>::length(text));
  if (name.size() > kNameLimit) name.resize(kNameLimit);
}

}  // namespace

CoordinatorClient::CoordinatorClient(CoordinatorClientOptions options)
    : options_(std::move(options)),
      exceptions_(std::uncaught_exceptions()),
      values_(join(Purpose::kValues, steady_clock::now() + options_.timeout)),
      heartbeats_(join(Purpose::kHeartbeats, steady_clock::now() + options_.timeout)),
      thread_([this] { beat(); }) {}

CoordinatorClient::~CoordinatorClient() {
  if (std::uncaught_exceptions() == exceptions_) goodbye();
  {
    const std::lock_guard lock(mutex_);
    wish_ = Wish::kStop;
  }
  changed_.notify_all();
  shutdown(heartbeats_.get(), SHUT_RDWR);
  thread_.join();
}

std::string CoordinatorClient::address() const {
  return fmt::format("{}:{}", options_.host, options_.port);
}

// Why the listener is not this job's coordinator, or not yet; "" where it is. Throws UserError where it refuses.
std::string CoordinatorClient::shake_hands(const Fd& socket, Purpose purpose, SteadyTime deadline) const {
  Handshake own = {.rank = options_.rank,
                   .size = options_.size,
                   .purpose = purpose,
                   .rank_nonce = random_bytes(kNonceBytes),
                   .coordinator_nonce = {}};
  FrameWriter hello(FrameKind::kHello);
  hello.text(kWireMagic).number(own.rank).number(own.size).number(static_cast<int64_t>(purpose)).text(own.rank_nonce);
  send_frame(socket, hello.frame(), deadline);
  const std::string challenge = receive_frame(socket, deadline);
  FrameReader question(challenge);
  if (question.kind() != FrameKind::kChallenge) return "another program listens there";
  own.coordinator_nonce = question.text();
  send_frame(socket, FrameWriter(FrameKind::kProof).text(make_proof(options_.token, Prover::kRank, own)).frame(),
             deadline);
  const std::string answer = receive_frame(socket, deadline);
  FrameReader reader(answer);
  if (reader.kind() == FrameKind::kRefused)
    throw UserError(fmt::format("the coordinator at {}", address()),
                    fmt::format("it refuses rank {} of {}: {}", own.rank, own.size, printable(reader.text())),
                    "start all ranks by one launcher, with one MIXTUNE_TOKEN, and give each job its own MASTER_PORT");
  if (reader.kind() != FrameKind::kWelcome) return "another program listens there";
  if (!same_proof(reader.text(), make_proof(options_.token, Prover::kCoordinator, own)))
    return "what listens there does not know this job's MIXTUNE_TOKEN";
  return "";
}

Fd CoordinatorClient::join(Purpose purpose, SteadyTime deadline) const {
  const auto warn_at = steady_clock::now() + options_.patience;
  bool warned = false;
  std::string why;
  do {
    try {
      const auto attempt = std::min(deadline, steady_clock::now() + kAttempt);
      Fd socket = connect_to(options_.host, options_.port, attempt);
      why = shake_hands(socket, purpose, attempt);
      if (why.empty()) return socket;
    } catch (const UserError&) {
      throw;
    } catch (const Error& error) {
      why = error.what();
    }
    if (!warned && steady_clock::now() > warn_at) {
      warned = true;  // shown even for a rank whose other messages are not
      log_line("mixtune: warning",
               fmt::format("rank {} has not reached rank 0 at {} yet ({})", options_.rank, address(), why));
    }
    std::this_thread::sleep_for(kRetryEvery);
  } while (steady_clock::now() < deadline);
  throw UserError("",
                  fmt::format("no coordinator at {} within {} ({})", address(), format_seconds(options_.timeout), why),
                  "check that rank 0 runs, and MASTER_ADDR and MASTER_PORT");
}

std::string CoordinatorClient::ask(const std::string& frame, milliseconds patience) {
  const std::lock_guard lock(values_mutex_);
  const auto deadline = steady_clock::now() + patience;
  try {
    send_frame(values_, frame, deadline);
    return receive_frame(values_, deadline);
  } catch (const Error& error) {
    shutdown(values_.get(), SHUT_RDWR);  // an answer that comes late must not become that of another question
    throw Error(fmt::format("the coordinator at {}", address()), error.what(), "see whether rank 0 has ended");
  }
}

std::string CoordinatorClient::own_address() const {
  return mixtune::own_address(values_);
}

void CoordinatorClient::set(const std::string& key, const std::string& value) {
  const std::string answer = ask(FrameWriter(FrameKind::kSet).text(key).text(value).frame(), options_.timeout);
  FrameReader reader(answer);
  if (reader.kind() != FrameKind::kDone)
    throw Error(fmt::format("the coordinator at {}", address()),
                fmt::format("it does not take a value: {}", printable(reader.text(), 200)), "");
}

std::string CoordinatorClient::get(int rank, const std::string& key) {
  const std::string answer =
      ask(FrameWriter(FrameKind::kGet).number(rank).text(key).number(options_.timeout.count()).frame(),
          options_.timeout + kSlack);
  FrameReader reader(answer);
  if (reader.kind() == FrameKind::kValue) return reader.text();
  if (reader.kind() == FrameKind::kFailed) {
    const Failure failure = failure_in(reader);
    throw Error("", failure.message, "", static_cast<ExitCode>(failure.exit_code));
  }
  const std::string absent = reader.text();
  throw Error("",
              fmt::format("rank {} has not set '{}' within {}{}{}", rank, printable(key),
                          format_seconds(options_.timeout), absent.empty() ? "" : "; ", absent),
              "");
}

void CoordinatorClient::set_step(int64_t step) {
  const std::lock_guard lock(mutex_);
  now_.step = step;
}

void CoordinatorClient::set_activity(const char* activity) {
  const std::lock_guard lock(mutex_);
  assign_name(activity_, activity);
  now_.activity = activity_;
}

void CoordinatorClient::advance() {
  const std::lock_guard lock(mutex_);
  ++now_.advances;
}

void CoordinatorClient::enter(const char* collective) {
  const std::lock_guard lock(mutex_);
  ++now_.collectives;
  now_.inside = true;
  assign_name(now_.collective, collective);
  now_.activity = now_.collective;
}

void CoordinatorClient::leave() {
  const std::lock_guard lock(mutex_);
  now_.inside = false;
  now_.activity = activity_;
}

Failure CoordinatorClient::fail(const std::string& message, int exit_code) {
  MT_CHECK(exit_code > 0 && exit_code < 256);
  std::unique_lock lock(mutex_);
  const Failure report = {.rank = options_.rank, .message = message.substr(0, kMaxWireText), .exit_code = exit_code};
  if (!ended_) {
    report_ = report;
    wish_ = Wish::kReport;
    changed_.notify_all();
    changed_.wait(lock, [&] { return ended_; });
  }
  return failure_.value_or(report);
}

void CoordinatorClient::goodbye() {
  std::unique_lock lock(mutex_);
  if (ended_) return;
  wish_ = Wish::kGoodbye;
  changed_.notify_all();
  changed_.wait(lock, [&] { return ended_; });
}

void CoordinatorClient::beat() {
  for (;;) {
    const Wish wish = next_wish();
    if (wish == Wish::kStop) return;
    const std::optional<Failure> failure = send(wish);
    if (failure || wish == Wish::kGoodbye) return end(wish, failure);
  }
}

CoordinatorClient::Wish CoordinatorClient::next_wish() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kBeatEvery, [&] { return wish_ != Wish::kBeat; });
  return wish_;
}

// Sends `wish`. Returns why the job has failed, if it has.
std::optional<Failure> CoordinatorClient::send(Wish wish) {
  const auto deadline = steady_clock::now() + (wish == Wish::kBeat ? options_.timeout : kSlack);
  const auto exchange = [&](Wish what) -> std::optional<Failure> {
    send_frame(heartbeats_, frame_of(what), deadline);
    const std::string answer = receive_frame(heartbeats_, deadline);
    FrameReader reader(answer);
    if (reader.kind() == FrameKind::kFailed) return failure_in(reader);
    if (reader.kind() == FrameKind::kHeard) waits_for_work_ = reader.number() != 0;
    return std::nullopt;
  };
  try {
    if (wish == Wish::kReport)  // tells where this rank is, which may be news
      if (auto failure = exchange(Wish::kBeat)) return failure;
    return exchange(wish);
  } catch (const Error& error) {
    return gone(wish, error.what());
  }
}

std::string CoordinatorClient::frame_of(Wish wish) {
  const std::lock_guard lock(mutex_);
  if (wish == Wish::kGoodbye) return FrameWriter(FrameKind::kGoodbye).frame();
  if (wish == Wish::kReport)
    return FrameWriter(FrameKind::kReport).number(report_.exit_code).text(report_.message).frame();
  return FrameWriter(FrameKind::kBeat)
      .number(now_.step)
      .number(static_cast<int64_t>(now_.collectives))
      .number(now_.inside)
      .text(now_.collective)
      .text(now_.activity)
      .number(static_cast<int64_t>(now_.advances))
      .frame();
}

Failure CoordinatorClient::gone(Wish wish, const char* why) {
  const std::lock_guard lock(mutex_);
  if (wish == Wish::kReport) return report_;
  return {.message = fmt::format("the coordinator at {} was lost: {}; see whether rank 0 or the launcher has ended",
                                 address(), why)};
}

void CoordinatorClient::end(Wish wish, const std::optional<Failure>& failure) {
  {
    const std::lock_guard lock(mutex_);
    if (wish_ == Wish::kStop) return;  // the destructor has cut the connection
    ended_ = true;
    failure_ = failure;
  }
  changed_.notify_all();
  if (failure && wish != Wish::kReport && options_.on_failure) options_.on_failure(*failure);
}

}  // namespace mixtune
