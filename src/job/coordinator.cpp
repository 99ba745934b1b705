#include "job/coordinator.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "job/socket.h"

namespace mixtune {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kPollTick{20};
constexpr milliseconds kTellTime{1000};  // ranks have this long to ask whether the job has failed
constexpr milliseconds kFullTime{20};    // for which nobody is let in where there is no room
constexpr size_t kStrangers = 256;       // at once: the oldest one makes room,
constexpr milliseconds kStay{200};       // once it has had this long, which a rank does not need to prove itself

std::vector<Fd> listen_for_ranks(const std::string& host, int port) {
  OwnAddresses own = own_addresses(host);
  if (!own.problem.empty()) {
    log_warning("{}: rank 0 listens at all addresses of this machine; set MASTER_ADDR to one of them", own.problem);
    own.addresses = {""};
  }
  std::vector<Fd> listeners;
  for (const std::string& address : own.addresses)
    listeners.push_back(listen_at(address, listeners.empty() ? port : port_of(listeners[0])));
  return listeners;
}

}  // namespace

struct Coordinator::Connection {
  Connection(int socket, Time now) : fd(socket), peer(now) {}

  const Fd fd;
  Peer peer;
};

Coordinator::Coordinator(CoordinatorOptions options)
    : options_(std::move(options)),
      start_(steady_clock::now()),
      warns_(logs(LogLevel::kWarning)),
      listeners_(listen_for_ranks(options_.host, options_.port)),
      port_(port_of(listeners_[0])),
      protocol_(options_.size, options_.token, options_.timeout, start_),
      listen_at_(start_),
      thread_([this] { serve(); }) {}

Coordinator::~Coordinator() {
  {
    std::unique_lock lock(mutex_);
    if (protocol_.watch().failure()) wait_until_told(lock);
  }
  stopping_ = true;
  thread_.join();
}

std::optional<Failure> Coordinator::failure() const {
  const std::lock_guard lock(mutex_);
  return protocol_.watch().failure();
}

void Coordinator::fail(Failure failure) {
  const std::lock_guard lock(mutex_);
  protocol_.watch().fail(std::move(failure));
}

std::optional<Failure> Coordinator::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return protocol_.watch().failure() || protocol_.watch().all_left(); });
  if (protocol_.watch().failure()) wait_until_told(lock);
  return protocol_.watch().failure();
}

void Coordinator::wait_until_told(std::unique_lock<std::mutex>& lock) {
  changed_.wait_for(lock, kTellTime, [&] { return untold_ == 0; });
}

bool Coordinator::joined(int rank) const {
  const std::lock_guard lock(mutex_);
  return protocol_.watch().joined(rank);
}

std::string Coordinator::place(int rank) const {
  const std::lock_guard lock(mutex_);
  return protocol_.watch().place(rank);
}

void Coordinator::serve() {
  while (!stopping_) {
    const std::vector<pollfd> polled = wait_for_events();
    const std::lock_guard lock(mutex_);
    const Time now = steady_clock::now();
    auto next = polled.begin() + std::ssize(listeners_);
    for (Connection& c : connections_)
      if ((next++)->revents != 0) receive(c, now);
    for (size_t i = 0; i < listeners_.size(); ++i)
      if (polled[i].revents != 0) accept_all(listeners_[i], now);
    finish_round(now);
    changed_.notify_all();
  }
}

// Polls listeners, then connections in order. One that is owed an answer is not read before it has taken that.
std::vector<pollfd> Coordinator::wait_for_events() const {
  std::vector<pollfd> polled;
  const bool listens = steady_clock::now() >= listen_at_;
  for (const Fd& listener : listeners_)
    polled.push_back({.fd = listener.get(), .events = static_cast<short>(listens ? POLLIN : 0)});
  for (const Connection& c : connections_)
    polled.push_back({.fd = c.fd.get(), .events = static_cast<short>(c.peer.out.empty() ? POLLIN : POLLOUT)});
  poll(polled.data(), polled.size(), static_cast<int>(kPollTick.count()));
  return polled;
}

void Coordinator::finish_round(Time now) {
  protocol_.watch().check(now);
  warn_of_absent(now);
  untold_ = 0;
  for (Connection& c : connections_) {
    protocol_.check(c.peer, now);
    flush(c);
    if (c.peer.ended) protocol_.close(c.peer);
    untold_ += c.peer.heartbeats() && !c.peer.ended && !c.peer.left && !c.peer.told;
  }
  std::erase_if(connections_, [](const Connection& c) { return c.peer.ended; });
}

// Warns without a look at the environment, which other threads may change.
void Coordinator::warn(const std::string& text) const {
  if (warns_) log_line("mixtune: warning", text);
}

void Coordinator::warn_of_absent(Time now) {
  if (looked_for_absent_ || now - start_ < options_.patience) return;
  looked_for_absent_ = true;
  if (const std::string absent = protocol_.watch().absent(); !absent.empty())
    warn(fmt::format("{} yet, {} after the start", absent, format_seconds(options_.patience)));
}

void Coordinator::accept_all(const Fd& listener, Time now) {
  for (;;) {
    const auto strangers = std::ranges::count_if(connections_, [](const Connection& c) { return !c.peer.proven(); });
    if (static_cast<size_t>(strangers) >= kStrangers && !make_room(now)) return;
    const int fd = accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
      const int on = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      connections_.emplace_back(fd, now);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      if (make_room(now)) continue;
      if (!std::exchange(said_full_, true))
        warn("rank 0 has no file descriptors left for ranks that join: raise their number, ulimit -n");
      return;
    } else if (errno != ECONNABORTED) {
      return;
    }
  }
}

// Closes the oldest stranger. Where none has been here for long, lets nobody in for a while and returns false.
bool Coordinator::make_room(Time now) {
  const auto oldest = std::ranges::find_if(connections_, [](const Connection& c) { return !c.peer.proven(); });
  if (oldest == connections_.end() || now - oldest->peer.since < kStay) {
    listen_at_ = now + kFullTime;
    return false;
  }
  connections_.erase(oldest);
  return true;
}

// Reads what has come. Bytes before the end of a connection still count.
void Coordinator::receive(Connection& c, Time now) {
  std::array<char, 64 << 10> bytes;
  const size_t room = CoordinatorProtocol::room(c.peer);
  if (room == 0) return;  // it must take its answer first; if it is gone, sending that fails
  const ssize_t n = recv(c.fd.get(), bytes.data(), std::min(bytes.size(), room), MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n > 0) protocol_.receive(c.peer, {bytes.data(), static_cast<size_t>(n)}, now);
  c.peer.ended = c.peer.ended || n <= 0;
  if (c.peer.stage == Peer::Stage::kRefused) say_refused(c);
}

// Warns once: strangers may not fill a log.
void Coordinator::say_refused(const Connection& c) {
  if (std::exchange(said_refused_, true)) return;
  warn(fmt::format("rank {} of {}, from {}, was refused: {}; others like it are not told of", c.peer.claim.rank,
                   c.peer.claim.size, other_address(c.fd), c.peer.refusal));
}

void Coordinator::flush(Connection& c) {
  std::string& out = c.peer.out;
  while (!out.empty() && !c.peer.ended) {
    const ssize_t n = send(c.fd.get(), out.data(), out.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      out.erase(0, static_cast<size_t>(n));
    } else if (errno != EINTR) {
      c.peer.ended = errno != EAGAIN;
      return;
    }
  }
  c.peer.ended = c.peer.ended || c.peer.stage == Peer::Stage::kRefused;
}

}  // namespace mixtune
