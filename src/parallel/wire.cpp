#include "parallel/wire.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "base/error.h"

namespace mixtune {

namespace {

void put_number(std::string& bytes, uint64_t value, size_t size) {
  for (size_t i = 0; i < size; ++i) bytes += static_cast<char>(value >> (8 * i) & 0xFF);
}

uint64_t number_in(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes.size(); ++i) value |= uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  return value;
}

Error wire_error(std::string_view what) {
  return Error("", what, "");
}

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Addresses resolve(const std::string& host, int port, int flags) {
  const addrinfo hints = {.ai_flags = flags | AI_NUMERICSERV, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.empty() ? nullptr : host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error == EAI_SYSTEM) throw wire_error(std::strerror(errno));
  if (error != 0) throw wire_error(gai_strerror(error));
  return {found, freeaddrinfo};
}

int open_socket(const addrinfo& address) {
  return socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, address.ai_protocol);
}

// 0, or errno.
int try_listen(int fd, const addrinfo& address) {
  const int on = 1, off = 0;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (address.ai_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  return bind(fd, address.ai_addr, address.ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0 ? 0 : errno;
}

// Whether `events` came before the deadline. An ended connection counts as all of them.
bool wait_for(int fd, short events, SteadyTime deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd polled = {.fd = fd, .events = events};
    const int n = poll(&polled, 1, static_cast<int>(std::clamp<int64_t>(left.count(), 0, 1 << 30)));
    if (n > 0) return true;
    if (n == 0 || errno != EINTR) return false;
  }
}

// 0, or errno.
int try_connect(int fd, const addrinfo& address, SteadyTime deadline) {
  if (connect(fd, address.ai_addr, address.ai_addrlen) == 0) return 0;
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

FrameWriter::FrameWriter(FrameKind kind) : bytes_(kFrameHead, '\0') {
  bytes_ += static_cast<char>(kind);
}

FrameWriter& FrameWriter::number(int64_t value) {
  put_number(bytes_, static_cast<uint64_t>(value), sizeof value);
  return *this;
}

FrameWriter& FrameWriter::text(std::string_view value) {
  put_number(bytes_, value.size(), kFrameHead);
  bytes_ += value;
  return *this;
}

const std::string& FrameWriter::frame() {
  const size_t size = bytes_.size() - kFrameHead;
  if (size > kMaxFrame) throw wire_error(fmt::format("a message of {} bytes is too large for the coordinator", size));
  std::string head;
  put_number(head, size, kFrameHead);
  return bytes_.replace(0, kFrameHead, head);
}

FrameReader::FrameReader(std::string_view body) : rest_(body), kind_(static_cast<FrameKind>(take(1)[0])) {}

int64_t FrameReader::number() {
  return static_cast<int64_t>(number_in(take(sizeof(int64_t))));
}

int FrameReader::number_within(int lowest, int highest) {
  const int64_t value = number();
  if (value < lowest || value > highest) throw wire_error("a number is out of its range");
  return static_cast<int>(value);
}

std::string FrameReader::text() {
  return std::string(take(number_in(take(kFrameHead))));
}

std::string_view FrameReader::take(size_t size) {
  if (size > rest_.size()) throw wire_error("a message is cut short");
  const std::string_view part = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return part;
}

std::optional<std::string_view> first_frame(std::string_view bytes, size_t limit) {
  if (bytes.size() < kFrameHead) return std::nullopt;
  const size_t size = number_in(bytes.substr(0, kFrameHead));
  if (size == 0 || size > limit) throw wire_error("a message is empty or too large");
  if (bytes.size() - kFrameHead < size) return std::nullopt;
  return bytes.substr(kFrameHead, size);
}

Fd listen_at(const std::string& host, int port) {
  std::string why;
  try {
    const Addresses addresses = resolve(host, port, AI_PASSIVE);
    // Of all addresses, those of IPv6 first: a socket of theirs serves both.
    for (const bool first : {true, false})
      for (const addrinfo* a = addresses.get(); a != nullptr; a = a->ai_next) {
        if ((host.empty() && a->ai_family == AF_INET6) != first) continue;
        const int fd = open_socket(*a);
        const int error = fd < 0 ? errno : try_listen(fd, *a);
        if (error == 0) return Fd(fd);
        const Fd unusable(fd);
        why = std::strerror(error);
      }
  } catch (const Error& error) {
    why = error.what();
  }
  throw UserError(fmt::format("{}:{}", host, port), fmt::format("the coordinator cannot listen there: {}", why),
                  "set MASTER_ADDR to an address of rank 0's machine and MASTER_PORT to a free port");
}

int port_of(const Fd& listener) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  MT_CHECK(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

Fd connect_to(const std::string& host, int port, SteadyTime deadline) {
  const Addresses addresses = resolve(host, port, 0);
  std::string why = "no address";
  for (const addrinfo* a = addresses.get(); a != nullptr; a = a->ai_next) {
    const int fd = open_socket(*a);
    const int error = fd < 0 ? errno : try_connect(fd, *a, deadline);
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
  const size_t size = number_in(receive_bytes(socket, kFrameHead, deadline));
  if (size == 0 || size > kMaxFrame) throw wire_error("the answer is not the coordinator's");
  return receive_bytes(socket, size, deadline);
}

}  // namespace mixtune
