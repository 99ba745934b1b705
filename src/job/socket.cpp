#include "job/socket.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "job/resolve.h"
#include "job/wire.h"

namespace mixtune {

namespace {

using std::chrono::steady_clock;

constexpr std::chrono::seconds kResolveTime{30};

int open_socket(int family) {
  return socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

UserError cannot_listen(const std::string& where, const std::string& why) {
  return UserError(where, fmt::format("the coordinator cannot listen there: {}", why),
                   "set MASTER_ADDR to an address of rank 0's machine and MASTER_PORT to a free port");
}

// Listens. Returns 0 or errno.
int try_listen(int fd, const Address& address) {
  const int on = 1, off = 0;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (address.family() == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  return bind(fd, address.get(), address.size) == 0 && listen(fd, SOMAXCONN) == 0 ? 0 : errno;
}

bool is_of_this_machine(const Address& address) {
  const Fd fd(open_socket(address.family()));
  return fd.get() >= 0 && bind(fd.get(), address.get(), address.size) == 0;
}

// Waits for `events`; returns whether they came before the deadline. An ended connection counts as all of them.
bool wait_for(int fd, short events, SteadyTime deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - steady_clock::now());
    pollfd polled = {.fd = fd, .events = events};
    const int n = poll(&polled, 1, static_cast<int>(std::clamp<int64_t>(left.count(), 0, 1 << 30)));
    if (n > 0) return true;
    if (n == 0 || errno != EINTR) return false;
  }
}

// Connects. Returns 0 or errno.
int try_connect(int fd, const Address& address, SteadyTime deadline) {
  if (connect(fd, address.get(), address.size) == 0) return 0;
  if (errno != EINPROGRESS && errno != EINTR) return errno;
  if (!wait_for(fd, POLLOUT, deadline)) return ETIMEDOUT;
  int error = 0;
  socklen_t size = sizeof error;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

std::string receive_bytes(const Fd& socket, size_t size, SteadyTime deadline) {
  std::string bytes(size, '\0');
  for (size_t done = 0; done < size;) {
    if (!wait_for(socket.get(), POLLIN, deadline)) throw wire_error("there was no answer in time");
    const ssize_t n = recv(socket.get(), bytes.data() + done, size - done, 0);
    if (n == 0) throw wire_error("the connection was closed");
    if (n < 0 && errno != EAGAIN && errno != EINTR) throw wire_error(std::strerror(errno));
    if (n > 0) done += static_cast<size_t>(n);
  }
  return bytes;
}

}  // namespace

// A name that stands for loopback addresses alone is most likely the machine's own in its /etc/hosts: for other
// machines it stands for another address.
OwnAddresses own_addresses(const std::string& host) {
  OwnAddresses own;
  std::vector<Address> found;
  try {
    found = resolve(host, 0, steady_clock::now() + kResolveTime);
  } catch (const Error& error) {
    throw cannot_listen(printable(host), error.what());
  }
  std::erase_if(found, [](const Address& address) { return !is_of_this_machine(address); });
  const bool only_loopback = std::ranges::all_of(found, &Address::is_loopback);
  if (found.empty())
    own.problem = fmt::format("{} is no address of this machine", printable(host));
  else if (only_loopback && !names_loopback(host))
    own.problem = fmt::format("{} is {} on this machine, which others cannot reach", printable(host), found[0].text());
  else
    for (const Address& address : found) own.addresses.push_back(address.text());
  return own;
}

// Takes IPv6 first for all addresses: such a socket serves both kinds.
Fd listen_at(const std::string& address, int port) {
  std::string why;
  for (const Address& a :
       numbers(address.empty() ? std::vector<std::string>{"::", "0.0.0.0"} : std::vector<std::string>{address}, port)) {
    const int fd = open_socket(a.family());
    const int error = fd < 0 ? errno : try_listen(fd, a);
    if (error == 0) return Fd(fd);
    const Fd unusable(fd);
    why = std::strerror(error);
  }
  throw cannot_listen(fmt::format("{}:{}", address, port), why);
}

int port_of(const Fd& listener) {
  Address address;
  MT_CHECK(getsockname(listener.get(), address.get(), &address.size) == 0);
  return address.port();
}

std::string own_address(const Fd& socket) {
  Address address;
  return getsockname(socket.get(), address.get(), &address.size) == 0 ? address.text() : "";
}

std::string other_address(const Fd& socket) {
  Address address;
  return getpeername(socket.get(), address.get(), &address.size) == 0 ? address.text() : "";
}

// Gives each address its share of the time, lest one that does not answer take that of the others.
Fd connect_to(const std::string& host, int port, SteadyTime deadline) {
  const std::vector<Address> addresses = resolve(host, port, deadline);
  std::string why = "no address";
  for (size_t i = 0; i < addresses.size(); ++i) {
    const auto now = steady_clock::now();
    const int fd = open_socket(addresses[i].family());
    const int error = fd < 0 ? errno : try_connect(fd, addresses[i], now + (deadline - now) / (addresses.size() - i));
    if (error == 0) {
      const int on = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      return Fd(fd);
    }
    const Fd unusable(fd);
    why = std::strerror(error);
  }
  throw wire_error(why);
}

void send_frame(const Fd& socket, const std::string& frame, SteadyTime deadline) {
  for (size_t done = 0; done < frame.size();) {
    if (!wait_for(socket.get(), POLLOUT, deadline)) throw wire_error("nothing could be sent in time");
    const ssize_t n = send(socket.get(), frame.data() + done, frame.size() - done, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR) throw wire_error(std::strerror(errno));
    if (n > 0) done += static_cast<size_t>(n);
  }
}

std::string receive_frame(const Fd& socket, SteadyTime deadline) {
  const size_t size = frame_size(receive_bytes(socket, kFrameHead, deadline));
  if (size == 0 || size > kMaxFrame) throw wire_error("the answer is not the coordinator's");
  return receive_bytes(socket, size, deadline);
}

}  // namespace mixtune
