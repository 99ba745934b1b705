#include "parallel/coordinator.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "parallel/wire.h"

namespace mixtune {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kTick{20};
constexpr milliseconds kHelloTime{5000};  // a connection has this long to say what it is
constexpr milliseconds kTellTime{1000};   // and ranks to ask whether the job has failed
constexpr size_t kStrangers = 64;         // connections, besides those of the ranks

}  // namespace

struct Coordinator::Connection {
  struct Wait {
    std::string key;
    Time deadline;
  };

  Connection(int socket, Time now) : fd(socket), since(now) {}

  void answer(FrameWriter frame) { out += frame.frame(); }
  void answer(FrameKind kind) { answer(FrameWriter(kind)); }
  void answer(const Failure& failure) {
    answer(std::move(FrameWriter(FrameKind::kFailed)
                         .number(failure.rank)
                         .number(failure.exit_code)
                         .number(failure.connection_lost)
                         .text(failure.message)));
    told = true;
  }
  void flush();
  bool heartbeats() const { return known && purpose == Purpose::kHeartbeats; }

  const Fd fd;
  const Time since;
  std::string in, out;
  bool known = false;  // it has said hello
  Purpose purpose = Purpose::kValues;
  int rank = -1;
  std::optional<Wait> wait;
  bool reported = false;  // waits for the decision
  bool told = false;      // of the failure
  bool left = false;
  bool ended = false;
};

void Coordinator::Connection::flush() {
  while (!out.empty() && !ended) {
    const ssize_t n = send(fd.get(), out.data(), out.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      out.erase(0, static_cast<size_t>(n));
    } else if (errno != EINTR) {
      ended = errno != EAGAIN;
      return;
    }
  }
}

Coordinator::Coordinator(CoordinatorOptions options)
    : options_(std::move(options)),
      start_(steady_clock::now()),
      listener_(listen_at(options_.host, options_.port)),
      port_(port_of(listener_)),
      watch_(options_.size, options_.timeout, start_),
      thread_([this] { serve(); }) {}

Coordinator::~Coordinator() {
  {
    std::unique_lock lock(mutex_);
    if (watch_.failure()) wait_until_told(lock);
  }
  stopping_ = true;
  thread_.join();
}

std::optional<Failure> Coordinator::failure() const {
  const std::lock_guard lock(mutex_);
  return watch_.failure();
}

void Coordinator::fail(Failure failure) {
  const std::lock_guard lock(mutex_);
  watch_.fail(std::move(failure));
}

std::optional<Failure> Coordinator::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return watch_.failure() || watch_.all_left(); });
  if (watch_.failure()) wait_until_told(lock);
  return watch_.failure();
}

void Coordinator::wait_until_told(std::unique_lock<std::mutex>& lock) {
  changed_.wait_for(lock, kTellTime, [&] { return untold_ == 0; });
}

bool Coordinator::joined(int rank) const {
  const std::lock_guard lock(mutex_);
  return watch_.joined(rank);
}

std::string Coordinator::place(int rank) const {
  const std::lock_guard lock(mutex_);
  return watch_.place(rank);
}

void Coordinator::serve() {
  while (!stopping_) {
    std::vector<pollfd> polled = {{.fd = listener_.get(), .events = POLLIN}};
    for (const Connection& c : connections_)
      polled.push_back({.fd = c.fd.get(), .events = static_cast<short>(c.out.empty() ? POLLIN : POLLIN | POLLOUT)});
    poll(polled.data(), polled.size(), static_cast<int>(kTick.count()));

    const std::lock_guard lock(mutex_);
    const Time now = steady_clock::now();
    auto events = polled.begin() + 1;
    for (Connection& c : connections_)
      if ((events++)->revents != 0) receive(c, now);
    if (polled[0].revents != 0) accept_all(now);
    watch_.check(now);
    warn_of_absent(now);
    untold_ = 0;
    for (Connection& c : connections_) {
      answer_waiting(c, now);
      c.flush();
      end_old(c, now);
      untold_ += c.heartbeats() && !c.ended && !c.left && !c.told;
    }
    std::erase_if(connections_, [](const Connection& c) { return c.ended; });
    changed_.notify_all();
  }
}

void Coordinator::warn_of_absent(Time now) {
  if (looked_for_absent_ || now - start_ < options_.patience) return;
  looked_for_absent_ = true;
  if (const std::string absent = watch_.absent(); !absent.empty())
    log_warning("{} yet, {} after the start", absent, format_seconds(options_.patience));
}

void Coordinator::accept_all(Time now) {
  for (;;) {
    const int fd = accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return;
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connections_.emplace_back(fd, now);
    if (connections_.size() > 2 * static_cast<size_t>(options_.size) + kStrangers) connections_.pop_back();
  }
}

// What came before the end of a connection still counts.
void Coordinator::receive(Connection& c, Time now) {
  std::array<char, 64 << 10> bytes;
  const ssize_t n = recv(c.fd.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n > 0) c.in.append(bytes.data(), static_cast<size_t>(n));
  try {
    while (const auto body = first_frame(c.in, c.known ? kMaxFrame : kMaxHello)) {
      handle(c, *body, now);
      c.in.erase(0, kFrameHead + body->size());
    }
  } catch (const Error&) {  // nothing that a rank says
    c.ended = true;
  }
  c.ended = c.ended || n <= 0;
}

void Coordinator::handle(Connection& c, std::string_view body, Time now) {
  if (!c.known) return greet(c, body, now);
  FrameReader reader(body);
  const auto expect = [&](Purpose purpose) {
    if (c.purpose != purpose) throw Error("", "a message came on the wrong connection", "");
  };
  switch (reader.kind()) {
    case FrameKind::kSet: {
      expect(Purpose::kValues);
      const std::string key = reader.text();
      values_[key] = reader.text();
      return c.answer(FrameKind::kDone);
    }
    case FrameKind::kGet: {
      expect(Purpose::kValues);
      const std::string key = reader.text();
      c.wait = {.key = key, .deadline = now + milliseconds(reader.number_within(0, 1 << 30))};
      return;
    }
    case FrameKind::kBeat: {
      expect(Purpose::kHeartbeats);
      Beat beat{.step = reader.number(), .collectives = static_cast<uint64_t>(reader.number())};
      beat.inside = reader.number() != 0;
      beat.collective = reader.text();
      beat.activity = reader.text();
      watch_.beat(c.rank, std::move(beat), now);
      return answer_beat(c);
    }
    case FrameKind::kReport: {
      expect(Purpose::kHeartbeats);
      Failure failure{.rank = c.rank, .exit_code = reader.number_within(1, 255)};
      failure.message = reader.text();
      watch_.report(std::move(failure), now);
      c.reported = true;
      return;
    }
    case FrameKind::kGoodbye:
      expect(Purpose::kHeartbeats);
      watch_.leave(c.rank);
      c.left = true;
      return answer_beat(c);
    default:
      throw Error("", "a message of no known kind", "");
  }
}

// A stranger gets no answer; a rank that is in the wrong job is told so.
void Coordinator::greet(Connection& c, std::string_view body, Time now) {
  FrameReader reader(body);
  if (reader.kind() != FrameKind::kHello || reader.text() != kWireMagic) throw Error("", "a stranger", "");
  const std::string token = reader.text();
  const int64_t rank = reader.number(), size = reader.number();
  const auto purpose = static_cast<Purpose>(reader.number_within(0, 1));
  const auto refuse = [&](std::string_view why) {
    c.answer(FrameWriter(FrameKind::kRefused).text(why));
  };
  if (token != options_.token) return refuse("it coordinates another job");
  if (size != options_.size || rank < 0 || rank >= size)
    return refuse("its job has " + std::to_string(options_.size) + " ranks");
  if (purpose == Purpose::kHeartbeats && !watch_.join(static_cast<int>(rank), now))
    return refuse("this rank has joined before");
  c.known = true;
  c.purpose = purpose;
  c.rank = static_cast<int>(rank);
  c.answer(FrameKind::kWelcome);
}

void Coordinator::answer_beat(Connection& c) {
  if (watch_.failure())
    c.answer(*watch_.failure());
  else
    c.answer(FrameKind::kDone);
}

void Coordinator::answer_waiting(Connection& c, Time now) {
  if (c.reported && watch_.failure()) {
    c.reported = false;
    c.answer(*watch_.failure());
  }
  if (!c.wait) return;
  if (const auto found = values_.find(c.wait->key); found != values_.end())
    c.answer(FrameWriter(FrameKind::kValue).text(found->second));
  else if (watch_.failure())
    c.answer(*watch_.failure());
  else if (now >= c.wait->deadline)
    c.answer(FrameWriter(FrameKind::kExpired).text(watch_.absent()));
  else
    return;
  c.wait.reset();
}

void Coordinator::end_old(Connection& c, Time now) {
  if (!c.known && now - c.since > kHelloTime) c.ended = true;
  if (c.ended && c.heartbeats() && !c.left) watch_.lose(c.rank);
}

}  // namespace mixtune
