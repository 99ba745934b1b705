// TCP addresses, and names that stand for them.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <chrono>
#include <string>
#include <vector>

namespace mixtune {

struct Address {
  sockaddr_storage bytes{};
  socklen_t size = sizeof bytes;

  sockaddr* get() { return reinterpret_cast<sockaddr*>(&bytes); }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&bytes); }
  int family() const { return bytes.ss_family; }
  int port() const;
  bool is_loopback() const;
  std::string text() const;  // as a number, without the port
};

// The addresses that `host`, a name or a number, stands for. Throws Error, which says why, where there are none, or
// where the resolver does not answer before the deadline: it then goes on in a thread of its own, for nobody.
std::vector<Address> resolve(const std::string& host, int port, std::chrono::steady_clock::time_point deadline);

// The addresses that `texts` are as numbers, without those that are none.
std::vector<Address> numbers(const std::vector<std::string>& texts, int port);

// Whether `host` itself says that it is this machine alone: a loopback number, or a name of localhost.
bool names_loopback(const std::string& host);

}  // namespace mixtune
