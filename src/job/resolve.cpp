#include "job/resolve.h"

#include <netdb.h>

#include <cerrno>
#include <cstring>
#include <future>
#include <memory>
#include <string_view>
#include <thread>

#include "base/error.h"

namespace mixtune {

namespace {

struct Found {
  std::vector<Address> addresses;
  std::string problem;
};

Found look_up(const std::string& host, int port, int flags) {
  const addrinfo hints = {.ai_flags = flags | AI_NUMERICSERV, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  addrinfo* list = nullptr;
  const int error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
  if (error == EAI_SYSTEM) return {.problem = std::strerror(errno)};
  if (error != 0) return {.problem = gai_strerror(error)};
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owned(list, freeaddrinfo);
  Found found;
  for (const addrinfo* a = list; a != nullptr; a = a->ai_next) {
    Address& address = found.addresses.emplace_back();
    std::memcpy(&address.bytes, a->ai_addr, a->ai_addrlen);
    address.size = a->ai_addrlen;
  }
  return found;
}

}  // namespace

int Address::port() const {
  return ntohs(family() == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(bytes).sin6_port
                                    : reinterpret_cast<const sockaddr_in&>(bytes).sin_port);
}

bool Address::is_loopback() const {
  if (family() == AF_INET) return ntohl(reinterpret_cast<const sockaddr_in&>(bytes).sin_addr.s_addr) >> 24 == 127;
  return family() == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6&>(bytes).sin6_addr);
}

std::string Address::text() const {
  char text[NI_MAXHOST];
  return getnameinfo(get(), size, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0 ? text : "";
}

std::vector<Address> resolve(const std::string& host, int port, std::chrono::steady_clock::time_point deadline) {
  Found found = look_up(host, port, AI_NUMERICHOST);
  if (found.addresses.empty()) {
    std::packaged_task<Found()> task([host, port] { return look_up(host, port, 0); });
    std::future<Found> result = task.get_future();
    std::thread(std::move(task)).detach();
    if (result.wait_until(deadline) != std::future_status::ready)
      throw Error("", "the name was not resolved in time", "");
    found = result.get();
  }
  if (!found.problem.empty()) throw Error("", found.problem, "");
  return std::move(found.addresses);
}

std::vector<Address> numbers(const std::vector<std::string>& texts, int port) {
  std::vector<Address> addresses;
  for (const std::string& text : texts)
    for (const Address& address : look_up(text, port, AI_NUMERICHOST).addresses) addresses.push_back(address);
  return addresses;
}

bool names_loopback(const std::string& host) {
  const std::string_view name = host;
  return !numbers({host}, 0).empty() || name == "localhost" || name.starts_with("localhost.") ||
         name.ends_with(".localhost") || name == "ip6-localhost";
}

}  // namespace mixtune
