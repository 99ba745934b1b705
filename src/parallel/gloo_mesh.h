// GlooMesh: carries bytes between the ranks of a group over TCP, and says which is lost. The process ignores SIGPIPE,
// which Gloo's writes to a lost rank raise.
#pragma once

#include <gloo/rendezvous/context.h>
#include <gloo/transport/tcp/device.h>

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "parallel/alarm.h"
#include "parallel/communicator.h"
#include "parallel/store.h"

namespace mixtune {

// The device with which this process listens at `host`. Throws Error where that is not an address of this machine.
std::shared_ptr<gloo::transport::Device> make_gloo_device(const std::string& host);

struct GlooGroup {
  std::string prefix;      // of its keys in the store
  int world = 1;           // number of ranks of the job
  std::vector<int> ranks;  // the members' ranks in the job
  int rank = 0;            // this process's place among the members
};

struct GlooPatience {
  std::chrono::milliseconds timeout{};  // GlooOptions'
  std::function<bool()> goes_on = {};
};

class GlooMesh {
 public:
  using Message = Communicator::Message;

  // Connects every two members; all of them call it. Throws Error where one does not come.
  GlooMesh(Store& store, std::shared_ptr<gloo::transport::Device> device, GlooGroup group, GlooPatience patience);

  // Does Communicator::exchange, but for what a rank sends to itself. After a failure every call throws.
  void move(const char* what, std::span<const Message> sends, std::span<const Message> receives);

  const GlooGroup& group() const { return group_; }

 private:
  // The reason that a rank tells the others when it leaves because of a failure.
  using LastWords = std::array<char, 128>;

  struct Peer {
    std::unique_ptr<gloo::transport::UnboundBuffer> memory, hears;
    uint64_t sent = 0, received = 0;  // messages so far; the n-th of a direction takes slot n
    LastWords last_words{};
  };

  void connect(Store& store);
  void watch(int peer);
  void greet();
  bool to_other(const Message& message) const;
  void post(int& peer, std::span<const Message> sends, std::span<const Message> receives);
  bool finish(int& peer, std::span<const Message> sends, std::span<const Message> receives);
  void end_waits();
  [[noreturn]] void fail(const char* what, const std::string& why);
  std::string late(int peer) const;
  std::string lost(int peer);
  bool is_gone(int peer);

  GlooGroup group_;
  std::chrono::milliseconds timeout_;
  std::string failure_;  // the first one
  std::shared_ptr<gloo::transport::Device> device_;
  std::unique_ptr<gloo::rendezvous::Context> context_;
  std::vector<Peer> peers_;
  Alarm alarm_;
};

}  // namespace mixtune
