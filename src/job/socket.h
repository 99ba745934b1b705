// TCP sockets as the coordinator and its ranks use them, and frames through them.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "base/file.h"

namespace mixtune {

using SteadyTime = std::chrono::steady_clock::time_point;

// The addresses of this machine that `host`, a name or address, stands for, as numbers.
struct OwnAddresses {
  std::vector<std::string> addresses;
  std::string problem;  // one line: why there is none that other machines could mean; else ""
};
// Throws UserError where `host` stands for nothing.
OwnAddresses own_addresses(const std::string& host);

// A socket that listens at an address of this machine, given as a number; "" stands for all of them, port 0 for any
// free one. Throws UserError where it cannot.
Fd listen_at(const std::string& address, int port);
int port_of(const Fd& listener);

// A connected socket. Throws Error, which says why, where there is none before the deadline, even if the resolver
// hangs.
Fd connect_to(const std::string& host, int port, SteadyTime deadline);

// The address at this, or the other, end of a connected socket, as a number.
std::string own_address(const Fd& socket);
std::string other_address(const Fd& socket);

// These throw Error where the connection ends or the deadline passes.
void send_frame(const Fd& socket, const std::string& frame, SteadyTime deadline);
std::string receive_frame(const Fd& socket, SteadyTime deadline);

}  // namespace mixtune
